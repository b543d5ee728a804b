#!/usr/bin/env bash
# The tests that need Python: the package, the bugs planted in the JAX port, real weights.
#   tools/python_test.sh VENV [pytest arguments]
set -euo pipefail
venv=$(realpath "$1")
shift
cd "$(dirname "$0")/.."
export PATH="$venv/bin:$PATH" PYTHONPATH="$PWD/python"
export SAMEBITS="${SAMEBITS:-$PWD/build/release/samebits}" SMOLLM2="${SMOLLM2:-$PWD/build/smollm2}"
# Threads that wait without spinning: they share two cores with other work.
export OMP_WAIT_POLICY=passive
export JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
python tools/get_smollm2.py "$SMOLLM2"
# -rs: every skip with its reason, above the closing line.
exec python -m pytest -q -rs -p no:cacheprovider python/tests tests/planted tests/mutations tests/live tests/parity "$@"
