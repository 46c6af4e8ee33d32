# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# Sourced by check and quickstart: installs the Debian or Ubuntu packages that are missing.

# need_packages PACKAGE=PROBE...: a package is there if its probe is: a command, or (with a slash)
# a file under /usr or /usr/local, which may be a glob pattern.
need_packages() {
  local missing=() as_root=() item
  for item; do
    is_there "${item#*=}" || missing+=("${item%%=*}")
  done
  ((${#missing[@]})) || return 0

  echo "missing packages: ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    echo "$0: no apt-get here: please install these packages (Debian's names) and try again" >&2
    exit 1
  elif ((EUID == 0)); then
    as_root=(env)
  elif command -v sudo >/dev/null; then
    as_root=(sudo env)
  else
    echo "$0: neither root nor sudo: please run as root: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
  local output
  if ! output=$({ "${apt[@]}" update &&
    "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"; } 2>&1); then
    printf '%s\n%s: could not install the packages\n' "$output" "$0" >&2
    exit 1
  fi
}

is_there() {
  if [[ $1 == */* ]]; then
    compgen -G "/usr/$1" >/dev/null || compgen -G "/usr/local/$1" >/dev/null
  else
    command -v "$1" >/dev/null
  fi
}
