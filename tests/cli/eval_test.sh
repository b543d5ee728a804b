#!/usr/bin/env bash
# eval on the embedded model: the same lines for any batch and number of threads, going on after a
# kill, what is refused, perplexity against recorded logits.
#   eval_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
model=$2/models/nano
questions=$model/heldout.jsonl
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
failed=0

same() {  # same WHAT EXPECTED ACTUAL
  cases=$((cases + 1))
  if [[ $2 != "$3" ]]; then
    printf '%s:\n  expected: %s\n  found:    %s\n' "$1" "${2:0:300}" "${3:0:300}"
    failed=$((failed + 1))
  fi
}
holds() {  # holds WHAT TEXT ACTUAL: ACTUAL must contain TEXT.
  cases=$((cases + 1))
  if [[ $3 != *"$2"* ]]; then
    printf '%s: no "%s" in: %s\n' "$1" "$2" "${3:0:600}"
    failed=$((failed + 1))
  fi
}
refused() {  # refused TEXT ARGUMENTS...: exit 2 and TEXT on stderr, nothing on stdout.
  local text=$1 code=0
  shift
  "$samebits" eval "$@" > "$work/out" 2> "$work/err" < /dev/null || code=$?
  same "exit code of $*" 2 "$code"
  holds "$*" "$text" "$(< "$work/err")"
  same "stdout of $*" "" "$(< "$work/out")"
}
# Lines without their times, in the order of the items.
results() { sed -E 's/,"timings":\{[^}]*\}//g' "$1" | sort; }

# Any batch and number of threads: greedy in a chat, sampled with examples.
for kind in "--chat --limit 40" "--shots 3 --limit 9 --samples 3 --temperature 1.5 --max-tokens 12"; do
  # shellcheck disable=SC2086
  for way in "1 1" "3 2" "16 1" "16 2"; do
    read -r batch threads <<< "$way"
    "$samebits" eval "$model" "$questions" $kind --batch "$batch" --threads "$threads" \
      -o "$work/$batch-$threads.jsonl" > "$work/out"
    same "batch $batch, $threads threads, $kind" "$(results "$work/1-1.jsonl")" \
      "$(results "$work/$batch-$threads.jsonl")"
  done
  rm "$work"/*.jsonl
done

# A sample can be had alone: its seed is in the line.
"$samebits" eval "$model" "$questions" --chat --limit 1 --samples 2 --temperature 3 \
  -o "$work/sampled.jsonl" > "$work/out"
question=$(head -1 "$questions" | sed -E 's/.*"question": "([^"]*)".*/\1/')
seed=$(tail -1 "$work/sampled.jsonl" | grep -o '"seed":[0-9]*' | tail -1 | cut -d: -f2)
text=$(tail -1 "$work/sampled.jsonl" | grep -o '"text":"[^"]*"' | tail -1 | cut -d'"' -f4)
same "a sample alone" "$text" \
  "$("$samebits" run "$model" "$question" --temperature 3 --seed "$seed" --max-tokens 256)"

# Cut anywhere, it goes on; nothing that is done is done again.
"$samebits" eval "$model" "$questions" --chat --limit 12 -o "$work/whole.jsonl" > "$work/summary"
size=$(stat -c %s "$work/whole.jsonl")
for cut in 0 10 $((size / 3)) $((size / 2)) $((size - 1)) "$size"; do
  head -c "$cut" "$work/whole.jsonl" > "$work/part.jsonl"
  done_before=$(grep -c '"item"' "$work/part.jsonl" || true)
  if [[ $cut -gt 0 && $(tail -c 1 "$work/part.jsonl" | wc -l) -eq 0 && $done_before -gt 0 ]]; then
    done_before=$((done_before - 1))  # its last line is cut
  fi
  holds "restored after $cut bytes" "\"restored\": " \
    "$("$samebits" eval "$model" "$questions" --chat --limit 12 -o "$work/part.jsonl" --json)"
  same "after $cut bytes" "$(results "$work/whole.jsonl")" "$(results "$work/part.jsonl")"
  same "kept after $cut bytes" "$(head -n $((done_before + 1)) "$work/whole.jsonl" | tail -n "$done_before")" \
    "$(tail -n +2 "$work/part.jsonl" | head -n "$done_before")"
done

# Ctrl-C: exit 2, how to go on, whole lines.
code=0
timeout --preserve-status -s INT 1 "$samebits" eval "$model" "$questions" --samples 1000 \
  --temperature 1 --batch 4 -o "$work/interrupted.jsonl" > "$work/out" 2> "$work/err" || code=$?
same "exit code when interrupted" 2 "$code"
holds "interrupted" "the same command goes on from $work/interrupted.jsonl" "$(< "$work/err")"
same "whole lines" "" "$(tail -c 1 "$work/interrupted.jsonl" | tr -d '\n')"

# One process a file: while one writes, a second is refused and changes nothing; then it goes on.
long=("$model" "$questions" --samples 1000 --temperature 1 --batch 4 -o "$work/interrupted.jsonl")
"$samebits" eval "${long[@]}" > "$work/first.out" 2> "$work/first.err" &
first=$!
for _ in $(seq 300); do  # until it holds the lock: its process has the file open
  find "/proc/$first/fd" -lname "$work/interrupted.jsonl" 2> "$work/none" | grep -q . && break
  sleep 0.1
done
sleep 0.2
refused "$work/interrupted.jsonl: expected a file that no other process writes" "${long[@]}" --limit 1
same "the first goes on" "" "$(< "$work/first.err")"
kill -INT "$first"
wait "$first" || true
holds "the first ends when asked" "the same command goes on from" "$(< "$work/first.err")"
code=0
timeout --preserve-status -s INT 1 "$samebits" eval "${long[@]}" > "$work/out" 2> "$work/err" || code=$?
holds "after the first" "interrupted: " "$(< "$work/err")"

# A disk that is full: a file that may not grow beyond 5 kB stands for it. Nothing is lost.
"$samebits" eval "$model" "$questions" --chat --limit 20 -o "$work/all.jsonl" > "$work/out"
code=0
(ulimit -f 5 && exec "$samebits" eval "$model" "$questions" --chat --limit 20 -o "$work/full.jsonl") \
  > "$work/out" 2> "$work/err" || code=$?
same "exit code on a full disk" 2 "$code"
holds "a full disk" "$work/full.jsonl: can not be written: File too large; its lines are whole" "$(< "$work/err")"
same "whole lines on a full disk" "" "$(tail -c 1 "$work/full.jsonl" | tr -d '\n')"
kept=$(grep -c '"item"' "$work/full.jsonl")
same "some items were kept, not all" 1 $((kept > 2 && kept < 20))
report=$("$samebits" eval "$model" "$questions" --chat --limit 20 -o "$work/full.jsonl" --json)
holds "after a full disk" "\"restored\": $kept," "$report"
same "after a full disk" "$(results "$work/all.jsonl")" "$(results "$work/full.jsonl")"
code=0
"$samebits" eval "$model" "$questions" --chat --limit 1 > /dev/full 2> "$work/err" || code=$?
same "exit code when the summary can not be written" 2 "$code"
holds "no summary" "standard output: can not be written" "$(< "$work/err")"
refused "/dev/full: expected a regular file or a new name, found a device" "$model" "$questions" \
  --chat -o /dev/full
refused "$work: expected a regular file or a new name, found a folder" "$model" "$questions" -o "$work"
refused "--output: expected the name of a file, found nothing" "$model" "$questions" -o ""

# Each stop stands once, also when it is given twice and the checkpoint has it as well.
"$samebits" eval "$model" "$questions" --chat --limit 1 --stop '<|im_end|>' --stop x --stop x \
  -o "$work/stops.jsonl" > "$work/out"
holds "stops" '"stop_ids":[495],"stop_texts":["x","Question:","</s>"],' "$(head -1 "$work/stops.jsonl")"

# Refused.
refused "\"max_tokens\": 256, this run has 5" "$model" "$questions" --chat --limit 12 \
  -o "$work/whole.jsonl" --max-tokens 5
refused "\"dtype\": \"bfloat16\"" "$model" "$questions" --chat -o "$work/whole.jsonl" --dtype float32
refused "output of samebits eval" "$model" "$questions" --chat -o "$model/config.json"
printf '{"question": "1 + 1?", "answer": "#### 2"}\n{"question": 5}\n' > "$work/bad.jsonl"
refused "bad.jsonl:2: 'question'" "$model" "$work/bad.jsonl"
refused "none.jsonl" "$model" "$work/none.jsonl"
: > "$work/empty.jsonl"
refused "no items" "$model" "$work/empty.jsonl"
tr -d '\n' < "$questions" | head -c 5000000 > "$work/joined.jsonl"
refused "joined.jsonl:1: not valid JSON" "$model" "$work/joined.jsonl"
holds "joined lines" "expected one JSON object a line" "$(< "$work/err")"
head -c 5000000 /dev/zero | tr '\0' '[' > "$work/line.jsonl"
refused "line.jsonl:1: expected one question a line, found a line of 5000000 bytes" "$model" "$work/line.jsonl"
printf '{"question": "1 + 1?", "answer": "#### two"}\n' > "$work/words.jsonl"
refused 'words.jsonl:1: '"'answer'"': expected a number alone behind the last "#### "' "$model" "$work/words.jsonl"
refused "$work: not a regular file" "$model" "$work/words.jsonl" --examples "$work" --shots 1
head -3 "$questions" > "$work/three.jsonl"
refused "--shots 3: $work/three.jsonl has 3 items" "$model" "$work/three.jsonl" --shots 3
refused "--samples 2: greedy answers are all the same" "$model" "$questions" --samples 2
refused "--perplexity" "$model" "$questions" --perplexity --chat
refused "needs at least 2" "$model" "$work/empty.jsonl" --perplexity
printf '{"question": "%s", "answer": "#### 2"}\n' "$(head -c 3000 /dev/zero | tr '\0' 'x')" > "$work/long.jsonl"
refused "long.jsonl:1: " "$model" "$work/long.jsonl"

for file in "$2"/tests/corpus/items/bad_*; do refused "$file:" "$model" "$file" --max-tokens 1; done
for file in "$2"/tests/corpus/items/ok_*; do
  code=0
  "$samebits" eval "$model" "$file" --max-tokens 1 > "$work/out" 2>&1 || code=$?
  same "exit code of $file" 0 "$code"
done

# Told, not refused: questions that repeat, or whose answers are shown. CRLF and a byte order mark
# are as nothing.
{ printf '\xef\xbb\xbf'; sed 's/$/\r/' "$work/three.jsonl"; head -1 "$work/three.jsonl"; } > "$work/twice.jsonl"
"$samebits" eval "$model" "$work/twice.jsonl" --chat -o "$work/twice.out" > "$work/out" 2> "$work/err"
holds "repeated" "twice.jsonl: 1 of 4 questions repeat another one (line 4 is line 1); each counts" "$(< "$work/err")"
"$samebits" eval "$model" "$work/three.jsonl" --chat -o "$work/three.out" > "$work/out" 2> "$work/err"
same "nothing to tell" "" "$(< "$work/err")"
same "CRLF and a byte order mark" "$(tail -n +2 "$work/three.out" | results /dev/stdin)" \
  "$(tail -n +2 "$work/twice.out" | grep -v '"item":3,' | results /dev/stdin)"
"$samebits" eval "$model" "$work/three.jsonl" --examples "$work/three.jsonl" --shots 1 > "$work/out" 2> "$work/err"
holds "shown" "three.jsonl: 1 of 3 questions are among the examples, with their answers (line 1)" "$(< "$work/err")"

# Perplexity.
printf 'There are 97 books in a box and 8 on the table.' > "$work/text"
"$samebits" trace "$model" --raw "$(< "$work/text")" --nodes lm_head -o "$work/l.safetensors" 2> "$work/err"
report=$("$samebits" eval "$model" "$work/text" --perplexity --against "$work/l.safetensors" --json)
holds "against itself" '"kl_max": 0.0' "$report"
holds "against itself" '"kl_max_token": null' "$report"
printf ' More' >> "$work/text"
refused "input_ids: expected the tokens of the text" "$model" "$work/text" --perplexity \
  --against "$work/l.safetensors"
refused "--window 1: expected 2 to 1024" "$model" "$work/text" --perplexity --window 1
refused "--stride 9: expected 1 to 8" "$model" "$work/text" --perplexity --window 8 --stride 9

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
