#!/usr/bin/env bash
# Everything that docs/performance.md holds, measured anew on this machine, as Markdown on standard
# output; half an hour for checkpoints of 0.1 to 3 GB, everything else stopped.
#   bench/measure.sh CHECKPOINT... > measured.md
# The first checkpoint is measured on every instruction set, too. Environment: ROUNDS (3); PYTHON,
# where the peers are installed (build/venv); OPENVINO, a folder of exports named as the checkpoints;
# LLAMA_BENCH, llama.cpp's program, and GGUF, a folder of NAME.gguf; LENGTHS for bench/growth.py.
# Steps that fail say so and count.
set -uo pipefail
[[ $# -gt 0 ]] || { echo "usage: $0 CHECKPOINT..." >&2; exit 2; }
root=$(realpath "$(dirname "$0")/..")
samebits=$root/build/release/samebits
programs=$root/build/bench/bench
venv=$root/build/venv/bin/python
python=${PYTHON:-$venv}
rounds=${ROUNDS:-3}
export OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
failed=0

# What is printed names checkpoints, and the peers' files, by their last names alone.
names=(-e "s#$python#python#g" -e "s#$venv#python#g" -e "s#$root/##g")
for path in "$@" ${LLAMA_BENCH:+"$LLAMA_BENCH"} ${OPENVINO:+"$OPENVINO"} ${GGUF:+"$GGUF"}; do
  names+=(-e "s#$path#$(basename "$path")#g")
done
step() {  # step COMMAND...: the command, what it prints, and how long it took
  local start=$SECONDS
  printf '\n    %s\n\n```\n' "$(sed "${names[@]}" <<< "$*")"
  "$@" 2> /dev/null | sed "${names[@]}"
  local status=${PIPESTATUS[0]}
  [[ $status -eq 0 ]] || { echo "failed with exit code $status"; failed=$((failed + 1)); }
  printf '```\n'
  echo "$((SECONDS - start)) s: $*" >&2
}
start_up() {  # start_up FOLDER: wall time of whole processes, three of each
  local TIMEFORMAT='%R s'
  for _ in 1 2 3; do
    echo "inspect, one token behind four"
    { time "$samebits" inspect "$1" > /dev/null; } 2>&1
    { time "$samebits" run "$1" --ids 1,2,3,4 --max-tokens 1 > /dev/null 2> /dev/null; } 2>&1
  done
}
beside_a_busy_thread() {  # beside_a_busy_thread FOLDER: decoding alone and beside it, in turns
  local one=("$samebits" bench "$1" --rounds 1 --prompt-tokens 64 --max-tokens 32 --batch 1)
  for _ in $(seq "$rounds"); do
    "${one[@]}" | sed -n 's/^decode  /alone:  /p'
    (while :; do :; done) &
    local busy=$!
    "${one[@]}" | sed -n 's/^decode  /beside: /p'
    kill "$busy"
    wait "$busy"
  done
  return 0
}

printf '# Measured on %s, %s\n\n' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" "$(date +%F)"
echo "$(nproc) virtual cores, Linux $(uname -r), $("$samebits" --version)"
printf '\n## Whole models\n'
for folder in "$@"; do
  step "$samebits" bench "$folder" --rounds "$rounds" --prompt-tokens 128,512 --batch 1,16 --max-tokens 16
done
printf '\n## Other instruction sets and dtypes, one thread, a long prompt\n'
isas=$(grep -q avx512f /proc/cpuinfo && echo avx512) || true
for cpu in $isas avx2; do
  step "$samebits" bench "$1" --rounds "$rounds" --cpu "$cpu" --prompt-tokens 512 --batch 1 --max-tokens 8
done
step "$samebits" bench "$1" --rounds "$rounds" --dtype float32 --prompt-tokens 512 --batch 1 --max-tokens 8
step "$samebits" bench "$1" --rounds "$rounds" --threads 1 --prompt-tokens 512 --batch 1 --max-tokens 8
step "$samebits" bench "$1" --rounds "$rounds" --prompt-tokens 512,4096 --batch 1 --max-tokens 8
printf '\n## Linear layers and attention alone\n'
step "$programs/linears" --shape 0.5b
step "$programs/linears" --shape 0.5b --rows 512
for cpu in $isas avx2; do step "$programs/linears" --shape 0.5b --rows 512 --cpu "$cpu"; done
step "$programs/linears" --shape 0.5b --rows 512 --dtype float32
for shape in "1536 576" "896 896" "1536 1536" "896 4864" "1536 8960"; do
  step "$programs/linears" --out "${shape% *}" --in "${shape#* }" --rows 512 --threads 1
done
step "$programs/attention"
step "$programs/attention" --heads 9 --kv-heads 3
step "$programs/attention" --heads 12 --head-dim 128
step "$programs/attention" --rows 1 --before 4095
printf '\n## Start, a busy neighbour\n'
for folder in "$@"; do step start_up "$folder"; done
step beside_a_busy_thread "$1"
printf '\n## Tokenizer\n'
step "$venv" "$root/bench/tokenizer.py" "$programs/tokenizer_bench" "$root/testdata/tokenizers/qwen2.5" --repetitions 3
printf '\n## Beside other engines\n'
for folder in "$@"; do
  name=$(basename "$folder")
  peers=()
  [[ -d ${OPENVINO:-}/$name ]] && peers+=(--openvino "$OPENVINO/$name")
  [[ -f ${GGUF:-}/$name.gguf ]] && peers+=(--llama-bench "$LLAMA_BENCH" --gguf "$GGUF/$name.gguf")
  step "$python" "$root/bench/peers.py" "$folder" --samebits "$samebits" --rounds "$rounds" "${peers[@]}"
done
printf '\n## How cost grows\n'
picture=()  # where matplotlib is installed
"$venv" -c "import matplotlib" 2> /dev/null && picture=(-o growth.svg)
step "$venv" "$root/bench/growth.py" "$@" --rounds "$rounds" --samebits "$samebits" "${picture[@]}" ${LENGTHS:+--lengths "$LENGTHS"}
[[ $failed -eq 0 ]] || { echo "$failed steps failed: see the output" >&2; exit 1; }
