# Sourced by quickstart.sh and runtests.sh: makes .venv once, installs what is asked for, and activates it.
# Usage: source scripts/environment.sh [EXTRAS]    EXTRAS are names of extras of pyproject.toml, for example "test" or "test,yolo"
# TORCH_INDEX=ADDRESS takes PyTorch from another package index, such as that of its wheels without CUDA libraries; see docs/first_steps.md.

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
    echo "Installing into .venv (once; several GB, unless TORCH_INDEX names an index without GPU libraries) ..." >&2
    if [ -z "${TORCH_INDEX:-}" ] && [ "$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! python -m pip show --quiet torch 2>/dev/null; then
        echo "No NVIDIA GPU was found. PyTorch without GPU libraries is several GB smaller: press Ctrl-C, and start this again with TORCH_INDEX=ADDRESS" >&2
        echo "in front. PyTorch's page \"Start locally\" shows the address for CPU; docs/first_steps.md says more (Install without a GPU)." >&2
    fi
    python -m pip install --quiet --upgrade pip
    [ -z "${TORCH_INDEX:-}" ] || python -m pip install --quiet --constraint constraints.txt --index-url "$TORCH_INDEX" torch torchvision
    python -m pip install --quiet --constraint constraints.txt --requirement requirements.txt
    [ -z "$extras" ] || python -m pip install --quiet --constraint constraints.txt --editable ".[$extras]"
    echo "$wanted" > "$stamp"
fi
