#!/usr/bin/env bash
# samebits diff: traces and checkpoints that are the same, that differ, and what can not be compared.
# On the embedded model; the weights are edited by a few lines of dd and printf, so that no Python is
# needed.
#   diff_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
model=$2/models/nano
corpus=$2/tests/corpus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
failed=0

# expect EXIT TEXT ARGUMENTS...: stdout and stderr together must hold TEXT.
expect() {
  local wanted=$1 text=$2 code=0
  shift 2
  timeout 60 "$samebits" diff "$@" > "$work/out" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  local found
  found=$(cat "$work/out" "$work/err")
  if [[ $code -ne $wanted || $found != *"$text"* ]]; then
    printf 'diff %s: expected exit %s and "%s", got exit %s and: %s\n' "$*" "$wanted" "$text" \
      "$code" "${found:0:600}"
    failed=$((failed + 1))
  fi
}

# in_json TEXT ARGUMENTS...: the JSON, without its white space, must hold TEXT.
in_json() {
  local text=$1 found
  shift
  found=$("$samebits" diff "$@" --json | tr -d ' \n') || true
  cases=$((cases + 1))
  if [[ $found != *"$text"* ]]; then
    printf 'diff %s --json: no %s in: %s\n' "$*" "$text" "${found:0:1200}"
    failed=$((failed + 1))
  fi
}

# safetensors FILE HEADER DATA_FILE: a file of those parts.
safetensors() {
  local header=$2
  while ((${#header} % 8)); do header+=' '; done
  {
    local length
    printf -v length '\\x%02x\\x%02x\\x00\\x00\\x00\\x00\\x00\\x00' $((${#header} % 256)) \
      $((${#header} / 256))
    printf "$length"
    printf '%s' "$header"
    cat "$3"
  } > "$1"
}

# Traces.
"$samebits" trace "$model" --ids 1,2,3,4 -o "$work/a.safetensors" 2> /dev/null
"$samebits" trace "$model" --ids 1,2,3,4 --chunk 3 -o "$work/b.safetensors" 2> /dev/null
"$samebits" trace "$model" --ids 1,2,3,5 -o "$work/c.safetensors" 2> /dev/null
"$samebits" trace "$model" --ids 1,2,3,4 --dtype float32 -o "$work/wide.safetensors" 2> /dev/null
expect 0 "77 of 77 nodes have the same bits" "$work/a.safetensors" "$work/b.safetensors"
expect 1 "first difference: model.embed_tokens" "$work/a.safetensors" "$work/c.safetensors"
expect 1 "input_ids, positions or attention_mask differ" "$work/a.safetensors" "$work/c.safetensors"
expect 1 "logits: KL " "$work/a.safetensors" "$work/c.safetensors"
expect 1 "dtype BF16 against F32" "$work/a.safetensors" "$work/wide.safetensors"
expect 1 "77 nodes have other dtypes" "$work/a.safetensors" "$work/wide.safetensors"
in_json '"same":true' "$work/a.safetensors" "$work/b.safetensors"
in_json '"first_difference":null' "$work/a.safetensors" "$work/b.safetensors"
in_json '"kl_mean":0.0' "$work/a.safetensors" "$work/b.safetensors"
in_json '"same_top1":4' "$work/a.safetensors" "$work/b.safetensors"
in_json '"first_difference":"model.embed_tokens"' "$work/a.safetensors" "$work/c.safetensors"
in_json '"difference":"dtype"' "$work/a.safetensors" "$work/wide.safetensors"
in_json '"kind":"traces"' "$work/a.safetensors" "$work/c.safetensors"
"$samebits" trace "$model" --ids 1,2,3,4,5 -o "$work/longer.safetensors" 2> /dev/null
expect 1 "shape [4, 224] against [5, 224]" "$work/a.safetensors" "$work/longer.safetensors"
expect 1 "77 nodes have other shapes" "$work/a.safetensors" "$work/longer.safetensors"
in_json '"difference":"shape"' "$work/a.safetensors" "$work/longer.safetensors"

# A batch: padding hides scores.
printf '\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0' > "$work/one"
printf '\1\0\0\0\2\0\0\0\7\0\0\0\4\0\0\0' > "$work/two"
header='{"__metadata__":{"format":"samebits-trace-1","dtype":"float32","input_ids":"[[1,2]]",
"attention_mask":"[[MASK]]"},"model.layers.0.self_attn.scores":{"dtype":"F32","shape":[1,1,2,2],
"data_offsets":[0,16]}}'
for file in one two; do
  safetensors "$work/padded_$file" "${header/MASK/0,1}" "$work/$file"
  safetensors "$work/whole_$file" "${header/MASK/1,1}" "$work/$file"
done
expect 0 "0 of 1 values differ" "$work/padded_one" "$work/padded_two"
expect 1 "1 of 3 values differ" "$work/whole_one" "$work/whole_two"

# Checkpoints: as a folder and as files, in the same and in other bits.
expect 0 "same" "$model" "$model"
expect 0 "0 only in the first, 0 only in the second" "$model" "$model/model.safetensors"
in_json '"kind":"checkpoints"' "$model" "$model"
in_json '"same":true' "$model" "$model"
in_json '"head_dim":16' "$model" "$model"
in_json '"head_dim":8' "$model" "$model" --head-dim 8
cp "$model/model.safetensors" "$work/edited.safetensors"
size=$(stat -c %s "$work/edited.safetensors")
last=$(tail -c 1 "$work/edited.safetensors" | od -An -tu1 | tr -d ' ')
printf "\\x$(printf %02x $((last ^ 1)))" |
  dd of="$work/edited.safetensors" bs=1 seek=$((size - 1)) conv=notrunc 2> /dev/null
expect 1 "no known relation: 1 of " "$model" "$work/edited.safetensors"
in_json '"other":1' "$model" "$work/edited.safetensors"

# A matrix [2, 3]: transposed, scaled, scaled but for one bit, swapped with another one, renamed.
printf '\x80\x3f\x00\x40\x40\x40\x80\x40\xa0\x40\xc0\x40' > "$work/x"     # 1 2 3 4 5 6 in bfloat16
printf '\x80\x3f\x80\x40\x00\x40\xa0\x40\x40\x40\xc0\x40' > "$work/turned"  # 1 4 2 5 3 6
printf '\x00\x40\x80\x40\xc0\x40\x00\x41\x20\x41\x40\x41' > "$work/double"  # 2 4 6 8 10 12
printf '\x00\x40\x80\x40\xc0\x40\x00\x41\x20\x41\x41\x41' > "$work/nearly"
entry='"NAME":{"dtype":"BF16","shape":[SHAPE],"data_offsets":[AT]}'
one() {  # NAME SHAPE AT
  local text=${entry/NAME/$1}
  text=${text/SHAPE/$2}
  printf '%s' "${text/AT/$3}"
}
for file in x turned double nearly; do
  safetensors "$work/$file.safetensors" "{$(one w 2,3 0,12)}" "$work/$file"
done
safetensors "$work/turned.safetensors" "{$(one w 3,2 0,12)}" "$work/turned"
safetensors "$work/renamed.safetensors" "{$(one v 2,3 0,12)}" "$work/x"
expect 1 "the second is the first transposed" "$work/x.safetensors" "$work/turned.safetensors"
in_json '"verdict":"transposed"' "$work/x.safetensors" "$work/turned.safetensors"
expect 1 "the second is the first scaled by 2" "$work/x.safetensors" "$work/double.safetensors"
in_json '"constant":2.0,"from":"a","id":"scaled"' "$work/x.safetensors" "$work/double.safetensors"
expect 1 "no known relation" "$work/x.safetensors" "$work/nearly.safetensors"
in_json '"relation":[]' "$work/x.safetensors" "$work/nearly.safetensors"
expect 1 "only in the first: w  BF16 [2, 3]: the second's v" "$work/x.safetensors" \
  "$work/renamed.safetensors"
cat "$work/x" "$work/double" > "$work/both"
cat "$work/double" "$work/x" > "$work/swapped"
for file in both swapped; do
  safetensors "$work/$file.safetensors" "{$(one gate 2,3 0,12),$(one up 2,3 12,24)}" "$work/$file"
done
in_json '"same_as":"up"' "$work/both.safetensors" "$work/swapped.safetensors"
in_json '"same_as":"gate"' "$work/both.safetensors" "$work/swapped.safetensors"

# What can not be compared.
expect 2 "is a trace" "$work/a.safetensors" "$model"
expect 2 "is a trace" "$work/x.safetensors" "$work/a.safetensors"
expect 2 "no tensor name in common" "$work/a.safetensors" "$corpus/trace/ok_no_tensor"
expect 2 "no_such" "$work/a.safetensors" "$work/no_such"
head -c 100 "$work/a.safetensors" > "$work/cut.safetensors"
expect 2 "cut.safetensors" "$work/cut.safetensors" "$work/a.safetensors"
expect 2 "cut.safetensors" "$work/x.safetensors" "$work/cut.safetensors"
expect 2 "samebits-trace-2" "$corpus/trace/bad_format_other" "$corpus/trace/bad_format_other"
mkdir "$work/empty"
expect 2 "model.safetensors" "$work/empty" "$model"
expect 2 "head-dim" "$model" "$model" --head-dim 0

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
