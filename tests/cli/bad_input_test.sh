#!/usr/bin/env bash
# The program on hostile files: every file of the corpora named bad_* gives exit 2 and one line that
# names it, every ok_* is read (found_* may be either); a damaged checkpoint and impossible arguments
# give exit 2.
# Left out: arbitrary bytes, which the fuzz targets cover.
#   bad_input_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
corpus=$2/tests/corpus
model=$2/models/nano
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
failed=0

# expect EXIT TEXT COMMAND...: with exit 2, stderr must hold TEXT and stay below 2000 characters.
expect() {
  local wanted=$1 text=$2 code=0
  shift 2
  timeout 60 "$@" > "$work/out" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  local message
  message=$(< "$work/err")
  if [[ $code -ne $wanted ]] ||
     [[ $wanted -eq 2 && ($message != *"$text"* || ${#message} -gt 2000) ]]; then
    printf 'expected exit %s and "%s", got exit %s and: %s\n  %s\n' "$wanted" "$text" "$code" \
      "${message:0:300}" "$*"
    failed=$((failed + 1))
  fi
}

for file in "$corpus"/safetensors/{ok,bad}_*; do
  name=$(basename "$file")
  cp "$file" "$work/$name.safetensors"
  wanted=2
  [[ $name == ok_* ]] && wanted=0
  expect $wanted "$name.safetensors" "$samebits" inspect "$work/$name.safetensors"
done
for file in "$corpus"/trace/{ok,bad}_*; do
  name=$(basename "$file")
  cp "$file" "$work/$name.safetensors"
  # Those in order belong to another model: check must refuse them, too.
  # The one without tensors breaks no rule: it is judged, and nothing can be told.
  text=$name.safetensors
  [[ $name == ok_no_tensor ]] && text=""
  expect 2 "$text" "$samebits" check "$model" "$work/$name.safetensors"
done
for file in "$corpus"/config/bad_*; do
  folder=$work/$(basename "$file")
  mkdir "$folder"
  cp "$file" "$folder/config.json"
  cp "$model/model.safetensors" "$folder"
  expect 2 "config.json" "$samebits" run "$folder" --ids 1,2,3
done

# A checkpoint cut short, one of another model, one that is missing, shards that lead elsewhere.
copy() { mkdir "$work/$1"; cp "$model"/*.json "$model/model.safetensors" "$work/$1"; }
copy truncated
truncate -s -100 "$work/truncated/model.safetensors"
expect 2 "model.safetensors" "$samebits" run "$work/truncated" --ids 1,2,3
copy other
sed -i 's/"hidden_size": [0-9]*/"hidden_size": 448/' "$work/other/config.json"
expect 2 "model.embed_tokens.weight" "$samebits" run "$work/other" --ids 1,2,3
copy missing
rm "$work/missing/model.safetensors"
expect 2 "missing" "$samebits" run "$work/missing" --ids 1,2,3
copy escape
rm "$work/escape/model.safetensors"
for shard in ../missing/config.json /etc/passwd a/b.safetensors ..; do
  printf '{"metadata":{},"weight_map":{"model.norm.weight":"%s"}}' "$shard" \
    > "$work/escape/model.safetensors.index.json"
  expect 2 "model.safetensors.index.json" "$samebits" run "$work/escape" --ids 1,2,3
done
expect 2 "no_such_folder" "$samebits" inspect "$work/no_such_folder"

# Arguments.
expect 2 "" "$samebits"
expect 2 "subcommand" "$samebits" nonsense
expect 2 "" "$samebits" run "$model"
expect 2 "ids" "$samebits" run "$model" --ids ""
expect 2 "99999" "$samebits" run "$model" --ids 1,99999
expect 2 "-1" "$samebits" run "$model" --ids 1,-1
expect 2 "x" "$samebits" run "$model" --ids 1,x
expect 2 "float8" "$samebits" run "$model" --ids 1,2 --dtype float8
expect 2 "sse" "$samebits" run "$model" --ids 1,2 --cpu sse
expect 2 "" "$samebits" run "$model" --ids 1,2 --threads -1
expect 2 "no_such" "$samebits" trace "$model" --ids 1,2 -o "$work/no_such_folder/trace.safetensors"
expect 0 "" "$samebits" trace "$model" --ids 1,2,3 -o "$work/trace.safetensors"
expect 0 "" "$samebits" diff "$work/trace.safetensors" "$work/trace.safetensors"
truncate -s -1 "$work/trace.safetensors"
expect 2 "trace.safetensors" "$samebits" diff "$work/trace.safetensors" "$work/trace.safetensors"
expect 2 "trace.safetensors" "$samebits" check "$model" "$work/trace.safetensors"

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
