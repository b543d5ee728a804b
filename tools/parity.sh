#!/usr/bin/env bash
# Compares transformers with samebits' replay of it and writes docs/parity.md.
#   tools/parity.sh VENV [arguments of tests/parity/table.py]
set -euo pipefail
venv=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
export PATH="$venv/bin:$PATH" PYTHONPATH="$PWD/python" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export SAMEBITS="${SAMEBITS:-$PWD/build/release/samebits}" SMOLLM2="${SMOLLM2:-$PWD/build/smollm2}"
python tools/get_smollm2.py "$SMOLLM2"
exec python tests/parity/table.py "$@"
