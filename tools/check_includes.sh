#!/usr/bin/env bash
# Says in words what the linker says in symbols: a module of samebits/ includes only itself and the
# modules that samebits/CMakeLists.txt lets it depend on, all of which stand above it there.
# Further: quoted includes are full paths of files that exist, modules do not see apps/, tests/ and
# bench/, and headers named *_testing.h are for tests.
#   tools/check_includes.sh [ROOT]        exit 0 in order, 1 not, 2 could not tell
set -euo pipefail
root=${1:-$(dirname "$0")/..}
cd "$root"
[[ -f samebits/CMakeLists.txt ]] || { echo "$root: no samebits/CMakeLists.txt" >&2; exit 2; }

folders=()
for folder in samebits apps tests bench; do
  if [[ -d $folder ]]; then folders+=("$folder"); fi
done

# One line "module dependency ..." for each module, in order.
modules=$(sed 's/#.*//' samebits/CMakeLists.txt | tr '\n' ' ' |
  grep -oE 'samebits_module\([^)]*\)' | sed -E 's/samebits_module\(|\)//g; s/DEPENDS//')

problems=$(
  {
    sed 's/^/module /' <<< "$modules"
    # file:line:#include "path"
    grep -rnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "${folders[@]}" \
      --include='*.h' --include='*.cc' | sed 's/^/include /' || true
    find samebits -mindepth 2 -maxdepth 2 -name '*.cc' | sed -E 's|samebits/([^/]*)/.*|folder \1|' |
      sort -u
  } | awk '
    $1 == "module" {
      name = $2
      known[name] = 1
      sees[name, name] = 1
      for (i = 3; i <= NF; ++i) {
        if ($i ~ /::/) continue  # a library of somebody else
        if (!($i in known)) {
          print "samebits/CMakeLists.txt: module " name " depends on " $i ", which does not stand above it"
          continue
        }
        for (other in known) if ((($i), other) in sees) sees[name, other] = 1
      }
    }
    $1 == "folder" && !($2 in known) { print "samebits/" $2 ": not a module of samebits/CMakeLists.txt" }
    $1 == "include" {
      match($0, /"[^"]*"/)
      path = substr($0, RSTART + 1, RLENGTH - 2)
      split($2, place, ":")
      file = place[1]
      where = file ":" place[2] ": includes " path
      ++count
      if ((getline line < path) < 0) { print where ": no such file from the root of the project"; next }
      close(path)
      is_test = file ~ /_test\.cc$|_testing\.(h|cc)$|^tests\/|^bench\//
      if (path ~ /_testing\.h$/ && !is_test) print where ": for tests only"
      if (file !~ /^samebits\//) next
      split(file, from, "/")
      split(path, to, "/")
      if (to[1] != "samebits") print where ": a module does not see " to[1] "/"
      else if (!((from[2], to[2]) in sees))
        print where ": module " from[2] " does not depend on " to[2] " (samebits/CMakeLists.txt)"
    }
    END { if (!count) print "no include found: is this the right folder?" }'
)
# Two types of one name in one namespace are undefined behaviour: the linker keeps one of their
# functions. jinja has a namespace of its own.
twice=$(find samebits apps -name '*.h' ! -path 'samebits/jinja/*' 2> /dev/null | sort |
  xargs -r sed -nE 's/^(struct|class|enum class) ([A-Za-z0-9]+)[^;]*\{.*$/\2/p' | sort | uniq -d || true)
[[ -z $twice ]] || problems+=$'\n'"types that two headers define: ${twice//$'\n'/, }"
if [[ -n $problems ]]; then
  echo "$problems"
  exit 1
fi
echo "includes: $(wc -l <<< "$modules") modules, every one sees only what stands above it"
