#!/usr/bin/env bash
# Runs every libFuzzer target of a fuzz build for a few seconds, from the committed corpus.
#   tools/fuzz.sh BUILD_DIR SECONDS_EACH        exit 1 and the input on a crash
set -euo pipefail
build=$(realpath "$1")
seconds=$2
cd "$(dirname "$0")/.."
targets=0
while IFS= read -r target; do
  name=$(basename "$target")
  found="$build/found/$name"
  mkdir -p "$found"
  # New inputs go to the first folder; a crash leaves its input in artifact_prefix.
  if ! "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$build/crash-$name-" "$found" "tests/corpus/${name%_fuzz}" \
    > "$build/$name.log" 2>&1; then
    tail -n 60 "$build/$name.log"
    echo "$name: crashed" >&2
    exit 1
  fi
  echo "$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$name.log") inputs in $seconds s"
  targets=$((targets + 1))
done < <(find "$build" -type f -name '*_fuzz' -perm -u+x | sort)
[[ $targets -gt 0 ]] || { echo "no fuzz targets in $build" >&2; exit 2; }
echo "$targets targets, no crash"
