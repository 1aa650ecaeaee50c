# Sourced by quickstart.sh and runtests.sh: makes .venv once, installs what is asked for, and activates it.
# Usage: source scripts/environment.sh [EXTRAS]    EXTRAS are names of extras of pyproject.toml, for example "test" or "test,yolo"

extras="${1:-}"
python="${PYTHON:-}"
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            python="$candidate"
            break
        fi
    done
fi
if [ -z "$python" ]; then
    echo "cellbundle needs Python 3.11, 3.12 or 3.13; none was found. Install one, or set PYTHON=/path/to/python" >&2
    exit 1
fi
# A half-made or moved environment is made anew.
.venv/bin/python -m pip --version >/dev/null 2>&1 && [ -f .venv/bin/activate ] || "$python" -m venv --clear .venv
# shellcheck disable=SC1091
source .venv/bin/activate

# The stamp names what is installed, so that a second run installs nothing.
stamp=".venv/installed-${extras:-base}"
wanted="$PWD $(cat pyproject.toml requirements.txt constraints.txt | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing into .venv (once; several GB, because PyTorch brings its GPU libraries) ..." >&2
    python -m pip install --quiet --upgrade pip
    python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt
    [ -z "$extras" ] || python -m pip install --quiet --constraint constraints.txt --editable ".[$extras]"
    echo "$wanted" > "$stamp"
fi
