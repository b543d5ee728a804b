#!/usr/bin/env bash
# samebits check, tolerance and trace --substitute as users call them, on the embedded model.
#   check_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
cd "$2"
model=models/nano
buggy=$model/demo/port_buggy.safetensors repaired=$model/demo/port_repaired.safetensors
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
failed=0

# expect EXIT TEXT COMMAND ARGUMENTS...: stdout and stderr together must hold TEXT.
expect() {
  local wanted=$1 text=$2 code=0 found
  shift 2
  timeout 120 "$samebits" "$@" > "$work/out" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  found=$(cat "$work/out" "$work/err")
  if [[ $code -ne $wanted || $found != *"$text"* ]]; then
    printf '%s: expected exit %s and "%s", got exit %s and: %s\n' "$*" "$wanted" "$text" "$code" \
      "${found:0:800}"
    failed=$((failed + 1))
  fi
}

# The report is written, whole, and holds the object of --json.
expect 1 "weight-not-transposed" check $model $buggy --report "$work/report.html"
expect 1 '"cause": "weight-not-transposed"' check $model $buggy --json
cases=$((cases + 1))
if ! grep -q '"cause":"weight-not-transposed"' "$work/report.html" ||
  ! tail -n 1 "$work/report.html" | grep -q '</html>'; then
  echo "the report is not whole"
  failed=$((failed + 1))
fi
expect 2 "can not be written" check $model $buggy --report "$work/none/report.html"
expect 1 "where that comes from" check $model $buggy --attribute
expect 1 '"attribution"' check $model $buggy --attribute --json

# Maps: one that fits nothing, one that is none, and a guess at one.
echo '{"tensors": [{"from": "none", "to": "lm_head"}]}' > "$work/map.json"
expect 2 "no tensor of" check $model $repaired --map "$work/map.json"
echo '{"tensor": []}' > "$work/map.json"
expect 2 "unknown key" check $model $repaired --map "$work/map.json"
expect 0 '"tensors"' check $model $repaired --suggest-map
echo '{"skip": ["model.layers.*.self_attn.*", "model.layers.*.mlp.*", "*norm", "*residual"]}' > "$work/map.json"
expect 0 "judged together" check $model $repaired --map "$work/map.json"
expect 1 "weight-not-transposed" check $model $buggy --map "$work/map.json"

# Log-probabilities.
printf '{"input_ids": [1, 2, 3], "dtype": "float32", "logprobs": [null, -90.5, -80.25]}' > "$work/l.json"
expect 1 "OUTSIDE" check $model "$work/l.json"
printf '{"input_ids": [1, 2, 3], "dtype": "float32", "logprobs": [-1, -2, -3]}' > "$work/l.json"
expect 2 "nothing stands before the first token" check $model "$work/l.json"
printf '{"input_ids": [1, 99999999], "dtype": "float32", "logprobs": [null, -2]}' > "$work/l.json"
expect 2 "input_ids" check $model "$work/l.json"
printf '{"input_ids": [1, 2], "dtype": "float32", "top_logprobs": [null, {"x": -2}]}' > "$work/l.json"
expect 2 "token ids as keys" check $model "$work/l.json"

# Tolerances.
expect 0 "gamma(226)" tolerance $model --ids 1,2,3,4 --dtype bfloat16
expect 0 "TOLERANCES = {" tolerance $model --ids 1,2,3,4 --python
expect 0 '"derivation"' tolerance $model --ids 1,2,3,4 --json

# A tensor substituted by itself changes no bit; the port's q_proj changes what comes behind it.
ids=1,2,3,4,5,6
expect 0 "" trace $model --ids $ids --dtype bfloat16 -o "$work/a.safetensors"
expect 0 "" trace $model --ids $ids --dtype bfloat16 -o "$work/b.safetensors" \
  --substitute "model.layers.*.self_attn.?_proj=$work/a.safetensors" \
  --substitute "model.layers.1.mlp.*.weight=$model/model.safetensors"
expect 0 "0 of" diff "$work/a.safetensors" "$work/b.safetensors"
expect 0 "" trace $model --ids $ids --dtype bfloat16 -o "$work/c.safetensors" --substitute \
  "model.layers.0.self_attn.q_proj.weight=$model/model.safetensors:model.layers.1.self_attn.q_proj.weight"
expect 1 "first difference: model.layers.0.self_attn.q_proj" diff "$work/a.safetensors" "$work/c.safetensors"
expect 1 "self_attn.q_proj in layer 0" check $model "$work/c.safetensors"
expect 2 "other token ids" trace $model --ids 7,8,9,10,11,12 --dtype bfloat16 -o "$work/d.safetensors" \
  --substitute "model.norm=$work/a.safetensors"
expect 2 "expected NAME=FILE" trace $model --ids $ids -o "$work/d.safetensors" --substitute model.norm
expect 2 "attention kernel" trace $model --ids $ids --dtype bfloat16 -o "$work/d.safetensors" \
  --substitute "model.layers.0.self_attn.probs=$work/a.safetensors"
expect 2 "has such a name" trace $model --ids $ids -o "$work/d.safetensors" \
  --substitute "model.nothing=$work/a.safetensors"
cases=$((cases + 1))
if [[ -e $work/d.safetensors ]]; then
  echo "a trace was written although a substitute was refused"
  failed=$((failed + 1))
fi

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
