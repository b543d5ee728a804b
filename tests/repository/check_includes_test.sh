#!/usr/bin/env bash
# The include check itself: silent on a tree in order, and it names each fault planted in one.
set -euo pipefail
check=$(realpath "$(dirname "$0")/../../tools/check_includes.sh")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failed=0

plant_tree() {
  rm -rf "$tree"
  mkdir -p "$tree"/samebits/{low,middle,side} "$tree"/apps
  printf '%s\n' 'samebits_module(low DEPENDS fmt::fmt)' \
    '# samebits_module(comment DEPENDS nothing)' \
    'samebits_module(middle' '  DEPENDS low)' 'samebits_module(side DEPENDS low)' \
    > "$tree"/samebits/CMakeLists.txt
  echo '#include <vector>' > "$tree"/samebits/low/low.h
  echo '#include <vector>' > "$tree"/samebits/low/bits_testing.h
  echo '#include "samebits/low/low.h"' > "$tree"/samebits/low/low.cc
  echo '#include "samebits/low/low.h"' > "$tree"/samebits/middle/middle.h
  echo '#include "samebits/low/bits_testing.h"' > "$tree"/samebits/middle/middle_test.cc
  echo '#include "samebits/low/low.h"' > "$tree"/samebits/side/side.cc
  echo '#include "samebits/middle/middle.h"' > "$tree"/apps/main.cc
}

# expect EXIT_CODE TEXT: what the check must say about the tree as it is now.
expect() {
  local code=0 output
  output=$("$check" "$tree" 2>&1) || code=$?
  if [[ $code -ne $1 || $output != *"$2"* ]]; then
    printf 'expected exit %s and "%s", got exit %s and:\n%s\n' "$1" "$2" "$code" "$output"
    failed=1
  fi
  plant_tree
}

plant_tree
expect 0 '3 modules'
echo '#include "samebits/middle/middle.h"' >> "$tree"/samebits/low/low.cc
expect 1 'samebits/low/low.cc:2: includes samebits/middle/middle.h: module low does not depend on'
echo '#include "samebits/middle/middle.h"' >> "$tree"/samebits/side/side.cc
expect 1 'module side does not depend on middle'
echo '#include "low.h"' >> "$tree"/samebits/low/low.cc
expect 1 'no such file from the root'
echo '#include "apps/main.cc"' >> "$tree"/samebits/low/low.cc
expect 1 'a module does not see apps/'
echo '#include "samebits/low/bits_testing.h"' >> "$tree"/samebits/middle/middle.h
expect 1 'for tests only'
echo 'samebits_module(late DEPENDS later)' >> "$tree"/samebits/CMakeLists.txt
expect 1 'module late depends on later, which does not stand above it'
mkdir "$tree"/samebits/stray && touch "$tree"/samebits/stray/stray.cc
expect 1 'samebits/stray: not a module'
printf 'struct Item {\n};\n' | tee -a "$tree"/samebits/middle/middle.h >> "$tree"/samebits/low/low.h
expect 1 'types that two headers define: Item'
rm "$tree"/samebits/CMakeLists.txt
expect 2 'no samebits/CMakeLists.txt'
[[ $failed -eq 0 ]] && echo "10 trees, each judged as it should be"
exit $failed
