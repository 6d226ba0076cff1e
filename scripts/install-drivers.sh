#!/usr/bin/env bash
# Makes the client drivers that tests/it/drivers.rs runs available in the cache
# folder, and does nothing when they are there already.
#
#   PyMySQL with cryptography   a Python virtual environment, drivers/python
#   node mysql2                 drivers/node/node_modules
#
# The Rust drivers are a crate of their own (tests/drivers/rust), which the test
# builds with cargo; the mysql CLIs come with scripts/install-servers.sh.
# Debian 12 (bookworm) is the reference system. Elsewhere the script says what
# to install. LOCKSTEP_CACHE moves the cache (default: .cache in the repository).
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${LOCKSTEP_CACHE:-$repo/.cache}
mkdir -p "$cache/drivers"
drivers=$(cd "$cache/drivers" && pwd)
wanted_python=$repo/tests/drivers/python/requirements.txt
wanted_node=$repo/tests/drivers/node

say() { printf 'install-drivers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" > /dev/null 2>&1; }

# One installer at a time: several checkouts may share a cache.
exec 9> "$drivers/lock"
flock 9

# Present and made from the same list of versions.
python_works() {
  cmp -s "$wanted_python" "$drivers/python/requirements.txt" &&
    "$drivers/python/bin/python" -c 'import pymysql, cryptography' 2> /dev/null
}
node_works() {
  cmp -s "$wanted_node/package-lock.json" "$drivers/node/package-lock.json" &&
    have node && (cd "$drivers/node" && node -e 'require("mysql2/promise")' 2> /dev/null)
}
if python_works && node_works; then
  exit 0
fi

# --- packages of the system --------------------------------------------------

missing=()
have python3 || missing+=(python3)
# Debian's python3 comes without the part that fills a virtual environment.
python3 -c 'import venv, ensurepip' 2> /dev/null || missing+=(python3-venv)
have node || missing+=(nodejs)
have npm || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
  if ! have apt-get; then
    die "this is not a Debian system. Please install python3 with venv, node and npm" \
      "with its own package manager, then run this again."
  elif [ "$(id -u)" != 0 ]; then
    die "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
fi

# --- the drivers -------------------------------------------------------------

# The list of versions is copied last: its presence says that the rest is whole.
if ! python_works; then
  say "installing PyMySQL into $drivers/python"
  rm -rf "$drivers/python"
  python3 -m venv "$drivers/python"
  "$drivers/python/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$wanted_python" >&2
  cp "$wanted_python" "$drivers/python/requirements.txt"
  python_works || die "PyMySQL was installed and cannot be imported"
fi
if ! node_works; then
  say "installing mysql2 into $drivers/node"
  rm -rf "$drivers/node"
  mkdir -p "$drivers/node"
  cp "$wanted_node/package.json" "$drivers/node/"
  cp "$wanted_node/package-lock.json" "$drivers/node/making.json"
  mv "$drivers/node/making.json" "$drivers/node/package-lock.json"
  if ! (cd "$drivers/node" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2); then
    rm -rf "$drivers/node"
    die "npm could not install mysql2"
  fi
  node_works || die "mysql2 was installed and cannot be loaded"
fi
