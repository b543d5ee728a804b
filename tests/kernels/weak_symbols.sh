#!/usr/bin/env bash
# A function template of the library that is instantiated in a source file built for AVX-512 becomes
# a weak symbol; the linker may take it for the whole program, which then dies on older CPUs. So the
# objects built for an instruction set must define none.
#   tests/kernels/weak_symbols.sh OBJECT...        exit 0 none, 1 some, 2 could not tell
set -euo pipefail
seen=0
failed=0
for object in "$@"; do
  [[ $(basename "$object") == *avx* ]] || continue
  seen=$((seen + 1))
  # DW.ref.*: a pointer of the exception tables, no code.
  weak=$(nm -C --defined-only "$object" | grep -E ' [WVu] ' | grep -v ' DW\.ref\.' || true)
  if [[ -n $weak ]]; then
    printf '%s defines weak symbols:\n%s\n' "$object" "$weak"
    failed=1
  fi
done
if [[ $seen -lt 4 ]]; then
  echo "expected four objects built for instruction sets, found $seen"
  exit 2
fi
[[ $failed -eq 0 ]] && echo "weak symbols: none in $seen objects"
exit $failed
