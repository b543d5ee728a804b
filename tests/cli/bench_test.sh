#!/usr/bin/env bash
# samebits bench: the forms that scripts rely on, and its errors.
#   tests/cli/bench_test.sh SAMEBITS SOURCE_DIR
set -euo pipefail
samebits=$1
nano=$2/models/nano
failed=0
expect() { # NAME PATTERN TEXT
  if ! grep -qE -- "$2" <<<"$3"; then
    printf '%s: expected %s in:\n%s\n' "$1" "$2" "$3"
    failed=1
  fi
}
small=(--rounds 1 --prompt-tokens 16 --max-tokens 3 --batch 1,4 --threads 2)
json=$("$samebits" bench "$nano" "${small[@]}" --json)
flat=$(tr -d ' \n' <<<"$json")
number='[0-9.e+-]+'
expect json '^\{.*\}$' "$flat"
for key in '"limits":\{' '"runs":\[\{' '"threads":2' '"dtype":"bfloat16"' \
  "\"read_bytes_per_s\":$number" "\"flops_per_s\":$number" "\"fma_flops_per_s\":$number" \
  '"isa":"' '"model":"' '"operations":\{[^}]*"linear":'; do
  expect json "$key" "$flat"
done
# RUN FIELDS...: one object of the runs has them all, in the order of the keys.
run() {
  expect "a run" "\{\"batch\":$3[^{]*\"depth\":$4,[^{]*\"kind\":\"$1\"[^{]*\{[^}]*\}[^}]*\"share_of_limit\":$number[^}]*\"tokens\":$2,\"tokens_per_s\":$number" "$flat"
}
run prefill 16 1 0
run decode 3 1 16
run decode 3 4 64
# The interpreter has no limit in arithmetic.
portable=$("$samebits" bench "$nano" "${small[@]}" --cpu portable --dtype float32 --json | tr -d ' \n')
expect portable '"kind":"prefill"[^}]*\}[^}]*"share_of_limit":null' "$portable"
text=$("$samebits" bench "$nano" --rounds 1 --prompt-tokens 8,16 --max-tokens 2 --batch 1)
expect text '^decode +2 +16 +1 .*% of the ' "$text"
expect "two lengths" '^prefill +8 .*' "$text"
expect "where the time goes" '^prefill 16 .*linear [0-9]+ %' "$text"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$samebits" bench "$nano" "${small[@]}" --plot "$folder/plot.svg" >/dev/null
expect plot '<circle class="prefill"' "$(cat "$folder/plot.svg")"
expect plot '^</svg>$' "$(tail -1 "$folder/plot.svg")"
code=0
message=$("$samebits" bench "$nano" "${small[@]}" --plot "$folder/none/plot.svg" 2>&1) || code=$?
[[ $code -eq 2 ]] || { echo "a plot that can not be written: exit code $code"; failed=1; }
expect "a plot that can not be written" 'plot.svg' "$message"
# Longer than the context.
code=0
message=$("$samebits" bench "$nano" --prompt-tokens 100000 2>&1) || code=$?
[[ $code -eq 2 ]] || { echo "too long a prompt: exit code $code"; failed=1; }
expect "too long a prompt" 'context' "$message"
exit $failed
