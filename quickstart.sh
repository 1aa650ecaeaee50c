#!/usr/bin/env bash
# Makes an environment and segments real and synthetic cells with the weights of this repository: no download, no account, no GPU.
# Prints the commands as you would type them; the last line is the path of the page with the results.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
out=quickstart_results
say_and_do() {
    echo "\$ $*"
    "$@"
    echo
}
python scripts/quickstart.py "$out"
say_and_do cellbundle predict "$out/immunohistochemistry.png" "$out/synthetic/images" --output "$out/results" --overwrite
say_and_do cellbundle evaluate "$out/results" --datalist "$out/synthetic/datalist.json" --basedir "$out/synthetic"
echo "Open this page in a browser:"
echo "$PWD/$out/results/index.html"
