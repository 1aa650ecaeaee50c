#!/usr/bin/env bash
# Make an environment with MONAI Label, start its server with the packaged bundles, and print a table: inference and training over HTTP.
#   scripts/monailabel_check.sh                   all bundles, those without weights in their small version
#   scripts/monailabel_check.sh cell_unet         only this one
#   scripts/monailabel_check.sh --full            all bundles as they are: large networks, slow without a GPU
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh ""
environment=.venv-monailabel
wanted="$PWD $(cksum < requirements-monailabel.txt)"
if [ "$(cat "$environment/installed" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing MONAI Label into $environment (once; several GB) ..." >&2
    python -m venv --clear "$environment"
    "$environment/bin/python" -m pip install --quiet "$(grep '^torch==' requirements-monailabel.txt)" setuptools wheel
    # sam2, which MONAI Label wants, is built from source: against this torch, and without its CUDA kernels
    SAM2_BUILD_CUDA=0 "$environment/bin/python" -m pip install --quiet --no-build-isolation --requirement requirements-monailabel.txt
    echo "$wanted" > "$environment/installed"
fi
exec python scripts/monailabel_check.py --environment "$environment" "$@"
