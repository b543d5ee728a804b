#!/usr/bin/env bash
# The program under mpirun: the same answers, traces and evaluations on any number of ranks, and
# faults that end all ranks soon, with one message that names the rank.
#   ranks_test.sh SAMEBITS PROJECT_SOURCE_DIR
set -uo pipefail
samebits=$1
cd "$2" || exit 2
if ! command -v mpirun > /dev/null; then
  echo "skipped: no mpirun on this machine"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# MPI keeps memory until the end on purpose.
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
ranks=(timeout 60 mpirun --oversubscribe --bind-to none)
checks=0
failures=0

fail() {
  echo "FAILED: $1"
  failures=$((failures + 1))
}
# same WHAT EXPECTED_FILE ACTUAL_FILE
same() {
  checks=$((checks + 1))
  cmp "$2" "$3" || fail "$1"
}
# says WHAT FILE TEXT: exactly one line of the file has the text.
says() {
  checks=$((checks + 1))
  [[ $(grep -cF -- "$3" "$2") -eq 1 ]] || { fail "$1: not once '$3' in:"; cat "$2"; }
}
# is WHAT EXPECTED ACTUAL
is() {
  checks=$((checks + 1))
  [[ $2 == "$3" ]] || fail "$1: expected $2, got $3"
}
timeless() {
  sed -n '/"timings"/q;p' "$1"
}

question="What is 17 + 25 - 30?"
sampled=(--temperature 1.2 --seed 5 --max-tokens 40)
"$samebits" run models/nano "$question" --json "${sampled[@]}" > "$work/one.json"
"$samebits" trace models/nano "$question" -o "$work/one.safetensors" 2> /dev/null
"$samebits" eval models/nano models/nano/heldout.jsonl --chat --limit 20 > "$work/one.eval"
for plan in "2 tp=2" "3 tp=3" "4 tp=4" "2 pp=2" "3 pp=3" "4 tp=2,pp=2" "6 tp=3,pp=2"; do
  read -r count parallel <<< "$plan"
  run=("${ranks[@]}" -n "$count" "$samebits")
  "${run[@]}" run models/nano "$question" --json "${sampled[@]}" --parallel "$parallel" \
    > "$work/many.json"
  same "$parallel: run" <(timeless "$work/one.json") <(timeless "$work/many.json")
  "${run[@]}" trace models/nano "$question" --parallel "$parallel" -o "$work/many.safetensors" \
    2> /dev/null
  "$samebits" diff "$work/one.safetensors" "$work/many.safetensors" > "$work/diff"
  is "$parallel: exit code of diff" 0 $?
  rm -f "$work/many.safetensors"
done
"${ranks[@]}" -n 3 "$samebits" eval models/nano models/nano/heldout.jsonl --chat --limit 20 \
  -o "$work/many.jsonl" > "$work/many.eval"
same "eval" <(head -2 "$work/one.eval") <(head -2 "$work/many.eval")
is "lines of eval" 21 "$(wc -l < "$work/many.jsonl")"
# Rank 0 alone has the file of an evaluation: the others do not wait for its lock, and another
# process that has it ends all of them.
held=("${ranks[@]}" -n 2 "$samebits" eval models/nano models/nano/heldout.jsonl --chat --limit 3)
flock "$work/held.jsonl" "${held[@]}" -o "$work/held.jsonl" > /dev/null 2> "$work/errors"
is "a locked file: exit code" 2 $?
says "a locked file" "$work/errors" "$work/held.jsonl: expected a file that no other process writes"
"${held[@]}" -o "$work/held.jsonl" > /dev/null 2> "$work/errors"
is "a file that is free again: exit code" 0 $?
"${held[@]}" -o /dev/full > /dev/null 2> "$work/errors"
is "a device for the output: exit code" 2 $?
says "a device for the output" "$work/errors" "/dev/full: expected a regular file or a new name"
head -5 README.md > "$work/text"
"$samebits" trace models/nano --raw "$(< "$work/text")" --nodes lm_head -o "$work/logits.safetensors" \
  2> /dev/null
printf %s "$(< "$work/text")" > "$work/text"
perplexity=(eval models/nano "$work/text" --perplexity --against "$work/logits.safetensors")
"${ranks[@]}" -n 2 "$samebits" "${perplexity[@]}" > "$work/many.txt" 2> "$work/errors"
is "perplexity: exit code" 0 $?
same "perplexity" <("$samebits" "${perplexity[@]}") "$work/many.txt"
echo "$question" | "${ranks[@]}" -n 2 "$samebits" run models/nano > "$work/many.txt"
same "standard input" <("$samebits" run models/nano "$question") "$work/many.txt"
printf '%s\n/reset\n%s\n' "$question" "What is 3 + 4?" > "$work/turns"
"${ranks[@]}" -n 2 "$samebits" chat models/nano < "$work/turns" > "$work/many.txt"
same "chat" <("$samebits" chat models/nano < "$work/turns") "$work/many.txt"
"${ranks[@]}" -n 2 "$samebits" inspect models/nano > "$work/many.txt"
same "a command of one rank" <("$samebits" inspect models/nano) "$work/many.txt"

# Under a profile: torch's bits, by its orders for the whole shapes.
compared=0
for name in avx2/bfloat16-eager-threads1 avx2/bfloat16-eager-threads1-batch3 \
    avx2/float32-eager-threads1 avx2/bfloat16-sdpa-threads1 avx2/float32-sdpa-threads1 \
    amx/float16-sdpa-threads1 amx/bfloat16-sdpa-threads1-prompt70; do
  reference=tests/golden/$name.safetensors
  profile=tests/golden/${name/-eager/}
  like=(trace models/nano --like "$reference" --profile "${profile/-sdpa/}.profile.json")
  "$samebits" "${like[@]}" -o "$work/one.safetensors" 2> "$work/errors" || cat "$work/errors"
  plans=("3 tp=3" "2 pp=2" "4 tp=2,pp=2")
  [[ $name != *sdpa* ]] || plans+=("2 tp=2" "4 tp=4" "7 tp=7")
  for parallel in "${plans[@]}"; do
    "${ranks[@]}" -n "${parallel% *}" "$samebits" "${like[@]}" --parallel "${parallel#* }" \
      -o "$work/many.safetensors" 2> "$work/errors" || cat "$work/errors"
    "$samebits" diff "$work/one.safetensors" "$work/many.safetensors" > "$work/diff"
    is "$name, $parallel: exit code of diff" 0 $?
    values=$(sed -n 's/.* 0 of \([0-9]*\) values differ.*/\1/p' "$work/diff")
    compared=$((compared + ${values:-0}))
    rm -f "$work/many.safetensors"
  done
done
echo "under a profile: $compared values compared"
checks=$((checks + 1))
[[ $compared -gt 1000000 ]] || fail "under a profile: only $compared values compared"

# check: the object, the text, the page and the exit code are those of one rank.
# checked EXIT ARGUMENTS...
checked() {
  local expected=$1 code=0
  shift
  "$samebits" check models/nano "$@" --json --report "$work/one.html" > "$work/one.json" 2> "$work/errors" || code=$?
  is "check $1: exit code" "$expected" "$code"
  "$samebits" check models/nano "$@" > "$work/one.txt" 2> "$work/errors"
  for count in 2 3 5; do
    "${ranks[@]}" -n "$count" "$samebits" check models/nano "$@" --json --report "$work/many.html" \
      > "$work/many.json" 2> "$work/errors"
    is "check $1, $count ranks: exit code" "$expected" $?
    same "check $1, $count ranks: JSON" "$work/one.json" "$work/many.json"
    same "check $1, $count ranks: report" "$work/one.html" "$work/many.html"
    rm -f "$work/many.html"
  done
  "${ranks[@]}" -n 2 "$samebits" check models/nano "$@" > "$work/many.txt" 2> "$work/errors"
  same "check $1: text" "$work/one.txt" "$work/many.txt"
}
"$samebits" trace models/nano "$question" -o "$work/healthy.safetensors" 2> /dev/null
checked 0 "$work/healthy.safetensors"
checked 1 models/nano/demo/port_buggy.safetensors --attribute
checked 0 tests/golden/avx2/float32-eager-threads1.safetensors \
  --profile tests/golden/avx2/float32-threads1.profile.json
"${ranks[@]}" -n 2 "$samebits" check models/nano "$work/nowhere" > /dev/null 2> "$work/errors"
is "check of no trace: exit code" 2 $?
says "check of no trace" "$work/errors" "samebits: $work/nowhere: "

# What is wrong everywhere is said once, without a rank.
"${ranks[@]}" -n 3 "$samebits" run "$work/nowhere" x > /dev/null 2> "$work/errors"
is "no model: exit code" 2 $?
says "no model" "$work/errors" "samebits: $work/nowhere: not a folder"
"${ranks[@]}" -n 3 "$samebits" run models/nano x --parallel tp=2 > /dev/null 2> "$work/errors"
is "another number: exit code" 2 $?
says "another number" "$work/errors" "2 ranks, mpirun started 3"
"$samebits" run models/nano x --parallel tp=2 > /dev/null 2> "$work/errors"
is "no mpirun: exit code" 2 $?
says "no mpirun" "$work/errors" "--parallel tp=2: 2 ranks, this is one; mpirun -n 2 samebits"

# Ranks that do not belong together.
cp -r models/nano "$work/other"
python3 - "$work/other/model.safetensors" << 'EOF'
import sys

path = sys.argv[1]
with open(path, "r+b") as file:
    file.seek(-2, 2)
    file.write(b"\x12\x34")
EOF
"${ranks[@]}" -n 1 "$samebits" run models/nano x : -n 1 "$samebits" run "$work/other" x \
  > /dev/null 2> "$work/errors"
is "another checkpoint: exit code" 2 $?
says "another checkpoint" "$work/errors" "samebits: rank 1 of 2 has another checkpoint than rank 0"
"${ranks[@]}" -n 2 "$samebits" run models/nano x : -n 1 "$samebits" run models/nano x --seed 2 \
  > /dev/null 2> "$work/errors"
is "other options: exit code" 2 $?
says "other options" "$work/errors" "samebits: rank 2 of 3 has another prompt or options than rank 0"
rm "$work/other/model.safetensors"
"${ranks[@]}" -n 2 "$samebits" run models/nano x : -n 1 "$samebits" run "$work/other" x \
  > /dev/null 2> "$work/errors"
is "a missing shard: exit code" 2 $?
says "a missing shard" "$work/errors" "samebits: rank 2 of 3 ("
says "a missing shard" "$work/errors" "model.safetensors"

# signalled JOB SIGNAL RANK FILE MESSAGE: of the rank that has FILE on its command line, in the midst
# of JOB; all must end soon, with the message.
signalled() {
  local pids=() start seconds what="$2 of rank $3"
  for process in /proc/[0-9]*; do
    grep -qzFx "OMPI_COMM_WORLD_RANK=$3" "$process/environ" 2> /dev/null || continue
    { tr '\0' ' ' < "$process/cmdline"; } 2> /dev/null | grep -qF "$4" || continue
    pids+=("${process#/proc/}")
  done
  start=$(date +%s)
  kill "-$2" "${pids[@]}"
  wait "$1"
  seconds=$(($(date +%s) - start))
  checks=$((checks + 1))
  [[ $seconds -le 10 ]] || fail "$what: $seconds s until all ranks had ended"
  says "$what" "$work/errors" "samebits: rank $3 of 3 ("
  says "$what" "$work/errors" "$5"
}

# A rank that dies or stalls in the middle: SIGNAL RANK MESSAGE.
fault() {
  "${ranks[@]}" -n 3 "$samebits" eval models/nano models/nano/heldout.jsonl --chat \
    --samples 500 --temperature 1 -o "$work/$1.$2.jsonl" > /dev/null 2> "$work/errors" &
  local job=$!
  for _ in $(seq 300); do  # until it has begun to compute
    sleep 0.1
    [[ $(wc -l 2> /dev/null < "$work/$1.$2.jsonl") -ge 1 ]] && break
  done
  sleep 0.3
  signalled "$job" "$1" "$2" "$work/$1.$2.jsonl" "$3"
  checks=$((checks + 1))
  tail -c 1 "$work/$1.$2.jsonl" | cmp -s - <(echo) || fail "$1 of rank $2: a cut line"
}
fault KILL 1 "died: its connection is closed"
fault KILL 0 "died: its connection is closed"
fault STOP 2 "has stalled: no sign of life for 6 s"

# The same while a long trace is judged.
"$samebits" trace models/nano --ids "$(seq -s, 1 480),$(seq -s, 1 480)" -o "$work/long.safetensors" \
  2> /dev/null
check_fault() {
  "${ranks[@]}" -n 3 "$samebits" check models/nano "$work/long.safetensors" --threads 1 \
    --report "$work/$1.$2.html" > /dev/null 2> "$work/errors" &
  local job=$! begun=0
  for _ in $(seq 300); do  # until rank 0 has the trace
    sleep 0.1
    for process in /proc/[0-9]*; do
      { tr '\0' ' ' < "$process/cmdline"; } 2> /dev/null | grep -qF "samebits check" || continue
      grep -qF "$work/long.safetensors" "$process/maps" 2> /dev/null && begun=1
    done
    [[ $begun -eq 0 ]] || break
  done
  sleep 0.3
  signalled "$job" "$1" "$2" "$work/$1.$2.html" "$3"
  checks=$((checks + 1))
  [[ ! -s $work/$1.$2.html ]] || fail "$1 of rank $2: a report of a check that did not end"
}
check_fault KILL 1 "died: its connection is closed"
check_fault KILL 0 "died: its connection is closed"
check_fault STOP 2 "has stalled: no sign of life for 6 s"

# Nor does a trace leave anything behind: KILL of the rank that writes it, in the middle.
mkdir "$work/traces"
ids=$(seq -s, 1 480)
"${ranks[@]}" -n 2 "$samebits" trace models/nano --ids "$ids" --chunk 1 \
  -o "$work/traces/many.safetensors" > /dev/null 2> "$work/errors" &
job=$!
writer=
for _ in $(seq 1000); do  # until the file is there, which has no name yet
  writer=$(find /proc/[0-9]*/fd -lname "$work/traces/*" 2> /dev/null | head -1 | cut -d/ -f3)
  [[ -z $writer ]] || break
  sleep 0.01
done
kill -KILL "$writer"
wait "$job"
says "KILL in a trace" "$work/errors" "samebits: rank 0 of 2 ("
is "what a trace leaves behind" "" "$(ls "$work/traces")"

# What is exchanged, counted by bench, against docs/scaling.md.
"${ranks[@]}" -n 2 "$samebits" bench models/nano --rounds 1 --max-tokens 4 --batch 1,3 --json \
  --exchange-delay 0.05 > "$work/bench.json" 2> "$work/errors" || cat "$work/errors"
checks=$((checks + 1))
python3 - "$work/bench.json" << 'EOF' || fail "bench: what is exchanged"
import json
import sys

with open("models/nano/config.json") as file:
    c = json.load(file)
with open(sys.argv[1]) as file:
    result = json.load(file)
layers = c["num_hidden_layers"]
size = {"float32": 4}.get(result["dtype"], 2)
layer = 3 * c["hidden_size"] + c["intermediate_size"]
assert result["ranks"] == {"tp": 2, "pp": 1, "exchange_delay_ms": 0.05}, result["ranks"]
decoded = [run for run in result["runs"] if run["kind"] == "decode"]
assert [run["batch"] for run in decoded] == [1, 3]
for run in decoded:
    tokens = run["tokens"] * run["batch"]
    assert run["exchanged"] == {
        "exchanges": (4 * layers + 1) * run["tokens"],
        "received_bytes": tokens * size * (layers * layer + c["vocab_size"]) // 2,
        "layer_exchanges": 4 * run["tokens"],
        "layer_received_bytes": tokens * size * layer // 2,
    }, run["exchanged"]
    assert run["seconds"] > run["exchanged"]["exchanges"] * 0.05e-3
EOF

echo "$checks checks, $failures failed"
[[ $checks -ge 40 && $failures -eq 0 ]]
