#!/usr/bin/env bash
# Uses a wheel as a stranger would: in an empty environment, outside of the clone, from data to a page;
# then once more with the oldest releases of its dependencies that it says it works with.
#     bash tests/release.sh dist/dinkcli-1.0.0-py3-none-any.whl
set -euo pipefail
wheel=$(realpath "$1")
samples=$(realpath "$(dirname "$0")/../sample_data")
torch=${TORCH:-torch}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

use() { # an environment's bin
    "$1/dink" --version
    "$1/dink" train "$samples/digits.npy" -k 10 -o digits.dink.safetensors
    "$1/dink" assign digits.dink.safetensors "$samples/digits.npy" -q | sed -n 1,3p
    "$1/dink" train "$samples/stdlib.parquet" -k 40 -q -o stdlib.dink.safetensors
    "$1/dink" name stdlib.dink.safetensors "$samples/stdlib.parquet" --texts id -q | sed -n 1,5p
    "$1/dink" report stdlib.dink.safetensors "$samples/stdlib.parquet" --ids id -q -o report.html
    "$1/python" -c "import dinkcli; print(len(dinkcli.assign('digits.dink.safetensors', '$samples/digits.npy')))"
}

"${PYTHON:-python3}" -m venv newest
newest/bin/pip install --quiet "$torch"
newest/bin/pip install --quiet "$wheel"
use newest/bin
du -sh newest

"${PYTHON:-python3}" -m venv oldest
oldest/bin/pip install --quiet uv "$torch"
# torch stays: its older builds without CUDA are not on the index that everybody has.
oldest/bin/uv pip install --quiet --python oldest/bin/python --resolution lowest-direct "$torch" "$wheel"
use oldest/bin
