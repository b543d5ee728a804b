#!/usr/bin/env bash
# Records the two traces of `make demo` with the JAX port of examples/jax_port, in bfloat16: as a porter
# has it at first (the square q_proj and o_proj not transposed) and repaired. Both add the bias after
# rounding, as x @ w + b does in JAX. Needs Python with jax, tokenizers, safetensors and numpy.
#   models/nano/record_demo.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-build/venv/bin/python}
model=models/nano
# The question of tools/demo.sh, in the model's chat template.
question="Tom has 23 apples, finds 19 and gives away 8. How many are left?"
ids=$("$python" - "$model/tokenizer.json" "$question" <<'PYTHON'
import sys
from tokenizers import Tokenizer

prompt = f"<|im_start|>user\n{sys.argv[2]}<|im_end|>\n<|im_start|>assistant\n"
print(",".join(map(str, Tokenizer.from_file(sys.argv[1]).encode(prompt).ids)))
PYTHON
)
mkdir -p $model/demo
export PYTHONPATH=python JAX_PLATFORMS=cpu
port=("$python" examples/jax_port/port.py --model $model --ids "$ids" --dtype bfloat16)
"${port[@]}" --bug weight-not-transposed --chain bias-separate -o $model/demo/port_buggy.safetensors
"${port[@]}" --chain bias-separate -o $model/demo/port_repaired.safetensors
