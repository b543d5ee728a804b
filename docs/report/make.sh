#!/usr/bin/env bash
# Writes docs/report/story.html.
#   docs/report/make.sh BINARY
set -euo pipefail
cd "$(dirname "$0")/../.."
code=0
"$1" check models/nano models/nano/demo/port_buggy.safetensors --report docs/report/story.html > /dev/null || code=$?
[[ $code -eq 1 ]]  # the bug
