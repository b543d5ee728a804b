#!/usr/bin/env bash
# Installs the Debian packages of the named groups that are not there yet: says which and why
# first, then calls apt-get (with sudo unless root). Installs nothing and needs no network when
# nothing is missing. docs/dependencies.md gives the reason for each package.
#   tools/install_dependencies.sh build|format|tidy|fuzz|bench|counts|python ...
set -euo pipefail

packages=()
for group in "$@"; do
  case "$group" in
    build) packages+=(g++ cmake ninja-build libfmt-dev nlohmann-json3-dev libcli11-dev
                      libedit-dev libgtest-dev libgmock-dev libsimdjson-dev libpcre2-dev
                      libssl-dev libzip-dev libopenmpi-dev openmpi-bin) ;;
    format) packages+=(clang-format-14) ;;
    tidy) packages+=(clang-tidy-14 git python3) ;;
    fuzz) packages+=(clang-14 libclang-rt-14-dev) ;;
    bench) packages+=(libbenchmark-dev) ;;
    ci) packages+=(ccache git) ;;
    counts) packages+=(valgrind python3) ;;
    python) packages+=(python3 python3-venv) ;;
    *) echo "$0: unknown group '$group'" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query > /dev/null; then
  echo "This is no Debian; samebits needs what these packages of Debian 12 hold:" >&2
  echo "  ${packages[*]}" >&2
  echo "Going on as if it were there." >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2> /dev/null || true)
  [[ $status == ii* ]] || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

echo "Missing Debian packages (for: $*), to be installed with apt-get:"
printf '  %s\n' "${missing[@]}"
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  if ! command -v sudo > /dev/null; then
    echo "Neither root nor sudo. As root, run:" >&2
    echo "  apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
apt=("${as_root[@]}" apt-get -qq -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
"${apt[@]}" update
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" > "$log" 2>&1; then
  cat "$log" >&2
  exit 2
fi
echo "Installed."
