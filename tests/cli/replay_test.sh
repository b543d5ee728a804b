#!/usr/bin/env bash
# trace --like, trace --profile and run --profile on profiles and traces that are damaged or belong
# to something else: exit 2, one message that says what is wrong, and no file, not even a part of one.
# The files are the goldens, edited by sed without a change of length. What they give when they are in
# order: tests/golden.
#   replay_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
model=$2/models/nano
golden=$2/tests/golden/avx2
corpus=$2/tests/corpus
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/made"
cases=0
failed=0
export LC_ALL=C  # sed on bytes

profile=$golden/bfloat16-threads1.profile.json
eager=$golden/bfloat16-eager-threads1.safetensors
batch=$golden/bfloat16-eager-threads1-batch3.safetensors

# refused TEXT ARGUMENTS...: of samebits; stderr must be one line and hold TEXT.
refused() {
  local text=$1 code=0
  shift
  timeout 60 "$samebits" "$@" > "$work/out" 2> "$work/err" || code=$?
  cases=$((cases + 1))
  local message
  message=$(grep -v "^Run with --help" "$work/err" || true)
  if [[ $code -ne 2 || $message != *"$text"* || ${#message} -gt 2000 || $message == *$'\n'* ]]; then
    printf 'expected exit 2 and "%s", got exit %s and: %s\n  %s\n' "$text" "$code" \
      "${message:0:400}" "$*"
    failed=$((failed + 1))
  fi
  if [[ -n $(ls -A "$work/made") || -s $work/out ]]; then
    printf 'something was written: %s %s\n  %s\n' "$(ls -A "$work/made")" \
      "$(head -c 100 "$work/out")" "$*"
    failed=$((failed + 1))
    rm -f "$work/made"/*
  fi
}

# like TEXT TRACE [PROFILE]
like() {
  local options=()
  [[ $# -lt 3 ]] || options=(--profile "$3")
  refused "$1" trace "$model" --like "$2" "${options[@]}" -o "$work/made/out.safetensors"
}

# edited TRACE EXPRESSION: a copy, edited by sed, of the same length.
edited() {
  sed "$2" "$1" > "$work/edited.safetensors"
  if cmp -s "$1" "$work/edited.safetensors" ||
     [[ $(stat -c %s "$1") -ne $(stat -c %s "$work/edited.safetensors") ]]; then
    printf 'the edit %s of %s did not fit\n' "$2" "$1"
    failed=$((failed + 1))
  fi
}

# Traces.
size=$(stat -c %s "$eager")
for cut in 0 1 7 8 9 100 2000 5000 $((size / 2)) $((size - 1)); do
  head -c "$cut" "$eager" > "$work/cut.safetensors"
  like "cut.safetensors" "$work/cut.safetensors" "$profile"
done
like "no_such.safetensors" "$work/no_such.safetensors" "$profile"
like "not a regular file" "$work" "$profile"
for file in "$corpus"/trace/bad_*; do like "$(basename "$file")" "$file" "$profile"; done
edited "$eager" 's/samebits-trace-1/samebits-trace-2/'
like "samebits-trace-2" "$work/edited.safetensors" "$profile"
like "samebits-trace-2" "$work/edited.safetensors"
edited "$eager" 's/"checkpoint_digest": "sha256:..../"checkpoint_digest": "sha256:ffff/'
like 'made with another checkpoint: its digest is "sha256:ffff' "$work/edited.safetensors" "$profile"
like 'made with another checkpoint' "$work/edited.safetensors"
edited "$eager" 's/"model.layers.3.mlp.act"/"model.layers.9.mlp.act"/'
like 'tensor "model.layers.9.mlp.act": this model has no such node' "$work/edited.safetensors"
edited "$eager" 's/"lm_head"/"lm.head"/'
like 'tensor "lm.head"' "$work/edited.safetensors" "$profile"
edited "$eager" 's/"input_ids": "\[[0-9][0-9][0-9],/"input_ids": "[496,/'
like "edited.safetensors: token id 496: expected 0 to 495" "$work/edited.safetensors" "$profile"
edited "$eager" 's/"attention": "eager"/"attention": "flash"/'
like "'attention': expected eager or sdpa, found \"flash\"" "$work/edited.safetensors" "$profile"
edited "$eager" 's/"attention": "eager"/"attention": "sdpa" /'
like "scores\": __metadata__ 'attention' is sdpa" "$work/edited.safetensors" "$profile"
edited "$eager" 's/"threads": "1"/"threads": "x"/'
like "'threads': expected a number, found \"x\"" "$work/edited.safetensors" "$profile"
edited "$eager" 's/"threads": "1"/"threads": "3"/'
like "recorded with 3 threads" "$work/edited.safetensors" "$profile"
edited "$eager" 's/"chunks": "\[9, 1, /"chunks": "[8, 2, /'
like "no entry for linear 224 -> 224 with bias, 8 rows in bfloat16" "$work/edited.safetensors" \
  "$profile"
like "python -m samebits probe --model DIR --dtype bfloat16 --threads 1 --prompts 8" \
  "$work/edited.safetensors" "$profile"
edited "$eager" 's/1065353216,/1073741824,/'
like "not the frequencies of this checkpoint" "$work/edited.safetensors" "$profile"
edited "$batch" 's/\[0, 0, 0, 0, 1, 1/[0, 1, 0, 0, 1, 1/'
like "expected padding on the left" "$work/edited.safetensors" \
  "$golden/bfloat16-threads1-batch3.profile.json"
like "give --profile FILE" "$batch"

# Profiles that are another's.
like "no entry for linear" "$eager" "$golden/bfloat16-threads1-batch3.profile.json"
like "no entry for" "$batch" "$profile"
like "recorded with 2 threads" "$golden/bfloat16-eager-threads2.safetensors" "$profile"
like "probe ... --threads 2" "$golden/bfloat16-eager-threads2.safetensors" "$profile"
like "a profile of float32; the model runs in bfloat16" "$eager" \
  "$golden/float32-threads1.profile.json"
# The same number of threads, but no attention of that kind.
edited "$golden/bfloat16-sdpa-threads1.safetensors" 's/"threads": "1"/"threads": "2"/'
like "sdpa" "$work/edited.safetensors" "$golden/bfloat16-threads2.profile.json"

# Profiles that are damaged, for each command that takes one.
for file in "$corpus"/profile/bad_*; do
  like "$(basename "$file")" "$eager" "$file"
  refused "$(basename "$file")" run "$model" --ids 1,2,3 --profile "$file"
done
size=$(stat -c %s "$profile")
for cut in 0 1 100 $((size / 2)) $((size - 3)); do
  head -c "$cut" "$profile" > "$work/cut.json"
  like "cut.json: " "$eager" "$work/cut.json"
done
like "can not be opened" "$eager" "$work/no_such.json"
like "not a regular file" "$eager" /dev/zero
like "not valid JSON" "$eager" "$eager"
refused "no 'softmax'" run "$model" --ids 1,2,3 --dtype float32 --profile "$corpus/profile/ok_small"
refused "no entry for linear 224 -> 224 with bias, 4 rows" run "$model" --ids 1,2,3,4 \
  --profile "$profile"
refused "no entry for linear" trace "$model" --ids 1,2,3,4 --profile "$profile" \
  -o "$work/made/out.safetensors"

# Arguments.
refused "--dtype float32" trace "$model" --like "$eager" --dtype float32 --profile "$profile" \
  -o "$work/made/out.safetensors"
refused "--ids" trace "$model" --like "$eager" --ids 1,2 -o "$work/made/out.safetensors"
refused "--nodes" trace "$model" --like "$eager" --nodes lm_head -o "$work/made/out.safetensors"
refused "--attention" trace "$model" --like "$eager" --profile "$profile" --attention eager \
  -o "$work/made/out.safetensors"
refused "--profile" run "$model" --ids 1,2 --attention eager
refused "flash" run "$model" --ids 1,2 --profile "$profile" --attention flash

# What was there before stays when a replay fails in its midst.
cp "$eager" "$work/kept.safetensors"
edited "$eager" 's/"chunks": "\[9, 1, 1, 1\]/"chunks": "[9, 1, 2]   /;s/"chunks": "\[9, 1, 2\]   "/"chunks": "[9, 1, 2   ]"/'
code=0
"$samebits" trace "$model" --like "$work/edited.safetensors" --profile "$profile" \
  -o "$work/kept.safetensors" 2> "$work/err" || code=$?
cases=$((cases + 1))
if [[ $code -ne 2 ]] || ! cmp -s "$eager" "$work/kept.safetensors" ||
   compgen -G "$work/kept.safetensors?*" > /dev/null; then
  printf 'a failed replay: exit %s, %s\n' "$code" "$(ls "$work")"
  failed=$((failed + 1))
fi

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
