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
small=(--rounds 1 --prompt-tokens 16 --max-tokens 3 --threads 2)
json=$("$samebits" bench "$nano" "${small[@]}" --json)
flat=$(tr -d ' \n' <<<"$json")
number='[0-9.e+-]+'
expect json '^\{.*\}$' "$flat"
for key in '"limits":\{' '"prefill":\{' '"decode":\{' '"threads":2' '"dtype":"bfloat16"' \
  "\"read_bytes_per_s\":$number" "\"flops_per_s\":$number" '"isa":"' '"model":"'; do
  expect json "$key" "$flat"
done
expect json "\"prefill\":\{[^}]*\"share_of_limit\":$number[^}]*\"tokens\":16,\"tokens_per_s\":$number" "$flat"
expect json "\"decode\":\{[^}]*\"share_of_limit\":$number[^}]*\"tokens\":3,\"tokens_per_s\":$number" "$flat"
# The interpreter has no limit in arithmetic.
portable=$("$samebits" bench "$nano" "${small[@]}" --cpu portable --dtype float32 --json | tr -d ' \n')
expect portable '"prefill":\{[^}]*"share_of_limit":null' "$portable"
expect text 'decode +3 .*% of the memory bandwidth' "$("$samebits" bench "$nano" "${small[@]}")"
# Longer than the context.
code=0
message=$("$samebits" bench "$nano" --prompt-tokens 100000 2>&1) || code=$?
[[ $code -eq 2 ]] || { echo "too long a prompt: exit code $code"; failed=1; }
expect "too long a prompt" 'context' "$message"
exit $failed
