#!/usr/bin/env bash
# The story of a ported model, on the embedded one: it answers a question; a JAX port of it is wrong
# and is told why; the repaired port is still not bit-equal, and that is fine. Every command is
# shown, so that it can be repeated.
#   tools/demo.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/.."
samebits=$1
model=models/nano
question="Tom has 23 apples, finds 19 and gives away 8. How many are left?"
mkdir -p build/demo

bold='' dim='' reset=''
if [[ -t 1 && -z ${NO_COLOR:-} ]]; then bold=$'\e[1m' dim=$'\e[2m' reset=$'\e[0m'; fi

heading() { printf '\n%s%s%s\n' "$bold" "$1" "$reset"; }
say() { printf '%s\n' "$@"; }

# run EXPECTED COMMAND...: shows the command, runs it, holds it to its exit code.
run() {
  local expected=$1 code=0
  shift
  printf '\n%s$' "$dim"
  local word
  for word in "$@"; do
    if [[ $word == *' '* ]]; then printf ' "%s"' "$word"; else printf ' %s' "$word"; fi
  done
  printf '%s\n' "$reset"
  "$@" || code=$?
  if [[ $code -ne $expected ]]; then
    echo "demo: exit code $code, expected $expected" >&2
    exit 1
  fi
}

heading "1. A small language model answers"
say "models/nano has the architecture of Qwen2.5 and learnt short sums."
run 0 "$samebits" run $model "$question"

heading "2. Somebody ported it to JAX. The logits are off by more than 20"
say "The port recorded what it computed, layer by layer. Is that rounding, or a bug?"
run 0 "$samebits" trace $model "$question" -o build/demo/ours.safetensors
run 1 "$samebits" diff --only lm_head build/demo/ours.safetensors $model/demo/port_buggy.safetensors
run 1 "$samebits" check $model $model/demo/port_buggy.safetensors

heading "3. The port was repaired. The logits still differ by a few tenths"
run 1 "$samebits" diff --only lm_head build/demo/ours.safetensors $model/demo/port_repaired.safetensors
say "" "A test with a tolerance would fail, or have been loosened until it passes. Is there another bug?"
run 0 "$samebits" check $model $model/demo/port_repaired.safetensors

heading "That was all. To judge your own port:"
say "record a trace (docs/trace-format.md; python/ has a one-line tap for JAX and a capture for" \
    "transformers), then: $samebits check MODEL TRACE"
