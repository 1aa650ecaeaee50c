#!/usr/bin/env bash
# Makes an environment and segments real and synthetic cells with the weights of this repository: no download, no account, no GPU.
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh
python scripts/quickstart.py --output quickstart_results
