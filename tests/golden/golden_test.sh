#!/usr/bin/env bash
# The recorded traces of PyTorch, replayed by their profiles on this machine: every value must have
# its bits, on every kernel and number of threads. Controls: a profile with one other rule, and
# `canonical`, must differ; a trace whose values are all zeros must be replayed to the same bytes,
# so nothing is copied from it. Without torch: make_golden.py made the files, manifest.json says how.
#   golden_test.sh BINARY SOURCE_DIR
set -euo pipefail
samebits=$1
model=$2/models/nano
golden=$2/tests/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cases=0
failed=0

fail() {
  printf '%s\n' "$1"
  failed=$((failed + 1))
}

# replay NAME REF PROFILE OPTIONS...: writes $work/NAME.
replay() {
  local name=$1 reference=$2 profile=$3
  shift 3
  if ! "$samebits" trace "$model" --like "$reference" --profile "$profile" -o "$work/$name" "$@" \
      2> "$work/err"; then
    fail "$name: $(< "$work/err")"
    return 1
  fi
  if [[ $(< "$work/err") == *"not proven"* ]]; then fail "$name: $(< "$work/err")"; fi
}

# differs EXIT REF FILE: of samebits diff.
differs() {
  local code=0
  cases=$((cases + 1))
  "$samebits" diff "$2" "$3" > "$work/out" 2>&1 || code=$?
  [[ $code -eq $1 ]] || fail "diff $2 $3: expected exit $1, got $code: $(head -c 600 "$work/out")"
}

# judged REF PROFILE: how many nodes `samebits check` finds to have the profile's bits, and not.
judged() {
  local code=0
  cases=$((cases + 1))
  "$samebits" check "$model" "$1" --profile "$2" --json > "$work/out" 2>&1 || code=$?
  [[ $code -eq 0 || $code -eq 2 ]] || fail "check $1: exit $code: $(head -c 600 "$work/out")"
  same=$(grep -c '"replay_differing": 0,\?$' "$work/out" || true)
  others=$(($(grep -c '"replay_differing"' "$work/out" || true) - same))
}

# header_length FILE: bytes in front of the tensors'.
header_length() {
  local bytes
  read -r -a bytes < <(od -An -tu1 -N8 "$1")
  echo $((8 + bytes[0] + 256 * bytes[1] + 65536 * bytes[2]))
}

# A folder for each kind of machine on which torch adds in other orders.
traces=("$golden"/*/*.safetensors)
canonical=0
[[ ${#traces[@]} -ge 6 ]] || fail "only ${#traces[@]} traces in $golden"
for reference in "${traces[@]}"; do
  folder=$(dirname "$reference")
  name=$(basename "$reference" .safetensors)
  profile=$folder/${name/-eager/}
  profile=${profile/-sdpa/}.profile.json
  name=$(basename "$folder")-$name
  sum=$(sha256sum "$reference")
  grep -q "${sum%% *}" "$folder/manifest.json" || fail "$name: not the file of its manifest.json"

  first=
  for options in "--cpu portable --threads 1" "--cpu portable --threads 3" \
      "--cpu native --threads 1" "--cpu native --threads 3"; do
    # shellcheck disable=SC2086
    replay "$name.out" "$reference" "$profile" $options || continue
    differs 0 "$reference" "$work/$name.out"
    grep -q "nodes have the same bits" "$work/out" || fail "$name: $(< "$work/out")"
    cp "$work/$name.out" "$work/$name.last"
    first=yes
  done
  [[ -n $first ]] || continue

  # Zeros for values: the header as it is.
  header=$(header_length "$reference")
  size=$(stat -c %s "$reference")
  head -c "$header" "$reference" > "$work/$name.zeros"
  head -c $((size - header)) /dev/zero >> "$work/$name.zeros"
  differs 1 "$reference" "$work/$name.zeros"
  replay "$name.again" "$work/$name.zeros" "$profile" --cpu native --threads 3
  cases=$((cases + 1))
  cmp -s "$work/$name.last" "$work/$name.again" || fail "$name: other bytes from a trace of zeros"

  # Without a profile: the canonical order, whose bits are others, but for a few short traces in
  # 16 bits. A batch needs a profile.
  [[ $name != *batch* ]] || continue
  "$samebits" trace "$model" --like "$reference" -o "$work/$name.canonical" 2> /dev/null
  cases=$((cases + 1))
  "$samebits" diff "$reference" "$work/$name.canonical" > /dev/null || canonical=$((canonical + 1))

  judged "$reference" "$profile"
  [[ $others -eq 0 && $same -ge 4 ]] || fail "check $name: $others nodes differ, $same do not"
done
[[ $canonical -ge 8 ]] || fail "only $canonical traces differ from canonical arithmetic"

# One rule changed, and the digest made to fit: a profile in order that tells of another machine.
other=$work/other.profile.json
body=$(< "$golden/avx2/float32-threads1.profile.json")
digest=$(grep -o '"digest":"[^"]*",' <<< "$body")
changed=${body/"$digest"/}
sum=$(printf '%s' "$changed" | sha256sum)
[[ $digest == "\"digest\":\"sha256:${sum%% *}\"," ]] || fail "$digest is not that of the text"
edited=${changed/'"halve_below":384,"product":"fused"'/'"halve_below":384,"product":"rounded"'}
[[ $edited != "$changed" ]] || fail "no rule to change"
sum=$(printf '%s' "$edited" | sha256sum)
printf '{"digest":"sha256:%s",%s' "${sum%% *}" "${edited#\{}" > "$other"
reference=$golden/avx2/float32-eager-threads1.safetensors
replay changed.out "$reference" "$other"
differs 1 "$reference" "$work/changed.out"
judged "$reference" "$other"
[[ $others -gt 0 ]] || fail "check: no node differs from a profile with another rule"

echo "$cases cases, $failed failed"
[[ $failed -eq 0 ]]
