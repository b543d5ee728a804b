#!/usr/bin/env bash
# What must hold for the committed files as text: nothing left unfinished, no path of one machine,
# no oversized source, no broken link between documents, nothing that should not be in git.
#   tools/check_repository.sh        exit 0 in order, 1 not
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
report() {  # report TITLE LINES: a problem, when there are lines
  [[ -z $2 ]] && return
  printf '%s:\n%s\n' "$1" "$2" | head -20
  failed=1
}

# The words are taken apart, or this file would find itself.
marks="TO""DO|FIX""ME|XX""X|not imple""mented|place""holder"
report "Unfinished" "$(git grep -nIE "\b($marks)\b" -- ':!*.json' ':!*.txt' || true)"

folders='home|root|Users|work|opt|mnt|srv|workspace'
report "Paths of one machine" "$(
  git grep -nIE "(^|[[:space:]\"'\`=(:])/($folders)/[A-Za-z0-9._-]" -- ':!*.lock' || true
  git grep -nIF -e "$PWD/" || true
)"

# Tables that a script makes are not read line by line.
report "Sources over 700 lines" "$(git ls-files -z '*.cc' '*.h' '*.py' ':!*_tables.cc' | xargs -0 wc -l |
  awk '$2 != "total" && $1 > 700' || true)"
report "Files over 20 MB" "$(git ls-files -z | xargs -0 du -k | awk '$1 > 20480' || true)"
report "Carriage returns" "$(git grep -lI $'\r$' -- '*.cc' '*.h' '*.py' '*.md' '*.sh' || true)"
report "Scripts that can not be executed" "$(git ls-files -s '*.sh' .ci/run | grep -v '^100755' || true)"
report "Ignored files in git" "$(git ls-files -ci --exclude-standard || true)"

for file in README.md LICENSE CHANGELOG.md CONTRIBUTING.md docs/architecture.md docs/dependencies.md; do
  [[ -s $file ]] || report "Missing" "$file"
done

# Relative links of the documents, without #anchors.
broken=$(git ls-files '*.md' | while IFS= read -r page; do
  grep -oE '\]\([^) ]+\)' "$page" | sed -E 's/^\]\(|\)$//g; s/#.*//' | grep -vE '^(https?:|mailto:|$)' |
    while IFS= read -r link; do
      [[ -e $(dirname "$page")/$link ]] || echo "$page: $link"
    done || true
done)
report "Broken links" "$broken"

[[ $failed -eq 0 ]] && echo "repository: $(git ls-files | wc -l) files in order"
exit $failed
