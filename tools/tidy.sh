#!/usr/bin/env bash
# clang-tidy over every committed C++ source; any finding is an error (.clang-tidy).
#   tools/tidy.sh BUILD_DIR [JOBS]        BUILD_DIR holds compile_commands.json
set -euo pipefail
build=$(realpath "$1")
jobs=${2:-$(nproc)}
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files 'samebits/*.cc' 'apps/*.cc' 'tests/*.cc')
log=$(mktemp)
trap 'rm -f "$log" "$log.err"' EXIT
if printf '%s\0' "${files[@]}" |
     xargs -0 -P "$jobs" -n 1 clang-tidy-14 -p "$build" --quiet \
       --extra-arg=-Wno-unknown-warning-option > "$log" 2> "$log.err"; then
  echo "clang-tidy: ${#files[@]} files, no finding"
else
  cat "$log"
  grep -v ' warnings\? generated\.$' "$log.err" >&2 || true
  exit 1
fi
