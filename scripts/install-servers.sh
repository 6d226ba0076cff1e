#!/usr/bin/env bash
# Makes the servers and tools that the tests, the demo and the benchmark need
# available, and does nothing when they are there already.
#
#   MariaDB, HAProxy, openssl, strace …   from the system's own packages
#   MySQL 9.7                             unpacked into a cache folder; the
#                                         system itself is left as it is
#
# Debian 12 (bookworm) is the reference system. Elsewhere the script says what
# to install. LOCKSTEP_CACHE moves the cache (default: .cache in the repository).
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${LOCKSTEP_CACHE:-$repo/.cache}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
mysql=$cache/mysql97

say() { printf 'install-servers: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# shellcheck source=scripts/foreign-apt.sh
. "$repo/scripts/foreign-apt.sh"
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# --- packages of the system --------------------------------------------------

# command -> Debian package that brings it
needed=(
  mariadbd:mariadb-server mariadb-install-db:mariadb-server
  mariadb:mariadb-client mariadb-binlog:mariadb-client
  haproxy:haproxy sysbench:sysbench openssl:openssl strace:strace faketime:faketime
)
missing=()
for pair in "${needed[@]}"; do
  have "${pair%%:*}" || missing+=("${pair#*:}")
done

is_debian() { have apt-get && have dpkg-deb; }

if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  if ! is_debian; then
    die "this is not a Debian system. Please install MariaDB 10.11 (server, client tools)," \
      "HAProxy, sysbench and openssl with its own package manager, then run this again."
  elif [ "$(id -u)" != 0 ]; then
    die "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # A package's own server must not be started on the machine's port 3306.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
fi

# --- MySQL 9.7 ---------------------------------------------------------------

works() { [ -x "$mysql/bin/mysqld" ] && "$mysql/bin/mysqld" --no-defaults --version 2>/dev/null | grep -q ' 9\.'; }

if works; then
  exit 0
fi
is_debian || die "MySQL 9.7 is fetched from Debian packages, which needs apt-get and dpkg-deb." \
  "Elsewhere unpack a MySQL 9.7 of your own so that $mysql/bin holds mysqld, mysql and mysqlbinlog."
[ "$(dpkg --print-architecture)" = amd64 ] || die "MySQL 9.7 is prepared for amd64 only."

# One installer at a time: several checkouts may share a cache.
exec 9> "$cache/mysql97.lock"
flock 9
if works; then
  exit 0
fi

say "fetching MySQL 9.7 from Debian sid into $mysql (about 100 MB, once)"
rm -rf "$mysql"
mkdir -p "$mysql"/{bin,debs,root}
foreign_apt_in "$mysql"
# libcap2 and libsystemd0 are only recommended through others, but mysqld links
# to them. Perl serves helper scripts nobody runs here.
packages=$(foreign_apt --simulate install mysql-server-core mysql-client libcap2 libsystemd0 |
  awk '$1 == "Inst" { print $2 }' | grep -vE '^(perl|libperl|debianutils|libdb5|libgdbm)' | sort -u)
[ -n "$packages" ] || die "apt found no MySQL in sid"
# shellcheck disable=SC2086 # one word per package
(cd "$mysql/debs" && foreign_apt download $packages)
for deb in "$mysql"/debs/*.deb; do
  dpkg-deb -x "$deb" "$mysql/root"
done
rm -rf "$mysql/debs" "$mysql/apt"

# The programs want a newer libc than the system has, so each is started by the
# dynamic loader that came with it, which looks for libraries only beside it.
tree=$mysql/root
loader=$(find "$tree" -name ld-linux-x86-64.so.2 -type f | head -n 1)
[ -n "$loader" ] || die "no dynamic loader among the unpacked packages"
libraries=$tree/usr/lib/x86_64-linux-gnu:$tree/lib/x86_64-linux-gnu:$tree/usr/lib/mysql/private

wrapper() { # wrapper NAME PROGRAM: the rest of the script text comes on stdin
  {
    printf '#!/bin/sh\n'
    printf 'run() { exec "%s" --inhibit-cache --library-path "%s" --argv0 "%s" "%s" "$@"; }\n' \
      "$loader" "$libraries" "$2" "$2"
    cat
  } > "$mysql/bin/$1"
  chmod +x "$mysql/bin/$1"
}
for name in mysql mysqlbinlog mysqldump mysqladmin mysqlslap; do
  [ -f "$tree/usr/bin/$name" ] && wrapper "$name" "$tree/usr/bin/$name" <<< 'run "$@"'
done
# The server must be told where its messages and plugins are; --no-defaults and
# its like are only accepted as the very first argument.
wrapper mysqld "$tree/usr/sbin/mysqld" << END
first=--no-defaults
case "\${1:-}" in --no-defaults | --defaults-*) first=\$1; shift ;; esac
run "\$first" --basedir="$tree/usr" --lc-messages-dir="$tree/usr/share/mysql" \\
  --character-sets-dir="$tree/usr/share/mysql/charsets" \\
  --plugin-dir="$tree/usr/lib/mysql/plugin" "\$@"
END
works || die "the unpacked mysqld does not start: try $mysql/bin/mysqld --version"
say "$("$mysql/bin/mysqld" --version | sed 's/.*Ver/MySQL/')"
