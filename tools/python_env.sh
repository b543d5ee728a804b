#!/usr/bin/env bash
# Makes the Python environment of the tests: the frameworks that samebits is compared with.
# Does nothing when it is there already.
#   tools/python_env.sh VENV
set -euo pipefail
venv=$1
# torch comes first and pinned: the numbers in docs/ were measured with it, and what follows would
# otherwise choose another one.
torch="torch==2.13.0"
others=("transformers>=5,<6" "jax>=0.6" safetensors tokenizers "numpy>=2" gguf jinja2 pytest ruff mypy)
stamp="$venv/.samebits"
wanted="$torch ${others[*]}"
if [[ -f $stamp && $(< "$stamp") == "$wanted" ]]; then
  exit 0
fi
echo "Python environment $venv: $wanted"
python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 5)
"${pip[@]}" "$torch"
"${pip[@]}" "$torch" "${others[@]}"
printf '%s\n' "$wanted" > "$stamp"
