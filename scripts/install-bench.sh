#!/usr/bin/env bash
# Makes the tools that `make bench` compares with available, and does nothing
# when they are there already: mydumper and myloader, pt-table-checksum.
# Debian 12 (bookworm) is the reference system; a tool that is missing is named
# by the benchmark and left out.
set -euo pipefail

say() { printf 'install-bench: %s\n' "$*" >&2; }
have() { command -v "$1" > /dev/null 2>&1; }

missing=()
have mydumper || missing+=(mydumper)
have pt-table-checksum || missing+=(percona-toolkit)
[ ${#missing[@]} -gt 0 ] || exit 0
if ! have apt-get; then
  say "this is not a Debian system: please install ${missing[*]} with its own package manager"
  exit 0
elif [ "$(id -u)" != 0 ]; then
  say "for all figures: sudo apt-get install -y --no-install-recommends ${missing[*]}"
  exit 0
fi
say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
