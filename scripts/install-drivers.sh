#!/usr/bin/env bash
# Makes the client drivers that tests/it/drivers runs available in the cache
# folder, and does nothing when they are there already.
#
#   Python  PyMySQL, mysqlclient, mysql-connector-python, Django
#           a virtual environment, drivers/python
#   Node    mysql2, Sequelize with umzug         drivers/node/node_modules
#   PHP     mysqli, PDO                          the system's packages
#   Perl    DBD::mysql, DBD::MariaDB             the system's packages
#   Java    MariaDB Connector/J 2 and 3, a JDK   drivers/java; the JDK and
#           version 2 are the system's, version 3 is Debian sid's
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
# shellcheck source=scripts/foreign-apt.sh
. "$repo/scripts/foreign-apt.sh"

# One installer at a time: several checkouts may share a cache.
exec 9> "$drivers/lock"
flock 9

# Present and made from the same list of versions.
python_works() {
  cmp -s "$wanted_python" "$drivers/python/requirements.txt" &&
    "$drivers/python/bin/python" -c 'import pymysql, cryptography, MySQLdb, mysql.connector, django' 2> /dev/null
}
node_works() {
  cmp -s "$wanted_node/package-lock.json" "$drivers/node/package-lock.json" &&
    have node && (cd "$drivers/node" &&
      node -e 'require("mysql2/promise"), require("sequelize"), require("umzug")' 2> /dev/null)
}
php_works() { have php && [ "$(php -m 2> /dev/null | grep -cxE 'mysqli|pdo_mysql')" = 2 ]; }
perl_works() { have perl && perl -MDBD::mysql -MDBD::MariaDB -e 1 2> /dev/null; }
java_works() {
  have javac && have java && [ -f "$drivers/java/mariadb-2.jar" ] && [ -f "$drivers/java/mariadb-3.jar" ]
}
if python_works && node_works && php_works && perl_works && java_works; then
  exit 0
fi

# --- packages of the system --------------------------------------------------

java2=/usr/share/java/mariadb-java-client.jar
missing=()
if ! python_works; then
  have python3 || missing+=(python3)
  # Debian's python3 comes without the part that fills a virtual environment.
  python3 -c 'import venv, ensurepip' 2> /dev/null || missing+=(python3-venv)
  # mysqlclient is built here, against the client library of MariaDB.
  have gcc || missing+=(gcc libc6-dev)
  have pkg-config || missing+=(pkg-config)
  pkg-config --exists libmariadb 2> /dev/null || missing+=(libmariadb-dev)
  python3 -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2> /dev/null || missing+=(python3-dev)
fi
have node || missing+=(nodejs)
have npm || node_works || missing+=(npm)
php_works || missing+=(php-cli php-mysql)
perl_works || missing+=(perl libdbd-mysql-perl libdbd-mariadb-perl)
have javac || missing+=(default-jdk-headless)
[ -f "$java2" ] || missing+=(libmariadb-java)
if [ ${#missing[@]} -gt 0 ]; then
  if ! have apt-get; then
    die "this is not a Debian system. Please install python3 with venv and headers, gcc, pkg-config," \
      "MariaDB's client library with headers, node and npm, php with mysqli and PDO, perl with" \
      "DBD::mysql and DBD::MariaDB, a JDK and MariaDB's JDBC driver 2.7 (as $java2)" \
      "with its own package manager, then run this again."
  elif [ "$(id -u)" != 0 ]; then
    die "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends "${missing[@]}" >&2
fi
php_works || die "php was installed and lacks mysqli or pdo_mysql: see php -m"
perl_works || die "perl was installed and cannot load DBD::mysql and DBD::MariaDB"

# --- the drivers -------------------------------------------------------------

# The list of versions is copied last: its presence says that the rest is whole.
if ! python_works; then
  say "installing the Python drivers into $drivers/python"
  rm -rf "$drivers/python"
  python3 -m venv "$drivers/python"
  "$drivers/python/bin/python" -m pip install --quiet --disable-pip-version-check \
    --requirement "$wanted_python" >&2
  cp "$wanted_python" "$drivers/python/requirements.txt"
  python_works || die "the Python drivers were installed and cannot be imported"
fi
if ! node_works; then
  say "installing the Node drivers into $drivers/node"
  rm -rf "$drivers/node"
  mkdir -p "$drivers/node"
  cp "$wanted_node/package.json" "$drivers/node/"
  cp "$wanted_node/package-lock.json" "$drivers/node/making.json"
  mv "$drivers/node/making.json" "$drivers/node/package-lock.json"
  if ! (cd "$drivers/node" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2); then
    rm -rf "$drivers/node"
    die "npm could not install the Node drivers"
  fi
  node_works || die "the Node drivers were installed and cannot be loaded"
fi
if ! java_works; then
  say "installing MariaDB Connector/J into $drivers/java"
  have apt-get && have dpkg-deb || die "MariaDB Connector/J 3 is unpacked from a Debian package." \
    "Elsewhere put a jar of version 3 at $drivers/java/mariadb-3.jar and one of version 2 at mariadb-2.jar."
  rm -rf "$drivers/java"
  mkdir -p "$drivers/java/unpacked"
  foreign_apt_in "$drivers/java"
  (cd "$drivers/java" && foreign_apt download libmariadb-java)
  dpkg-deb -x "$drivers"/java/libmariadb-java_3*.deb "$drivers/java/unpacked"
  cp -L "$java2" "$drivers/java/mariadb-2.jar"
  cp -L "$drivers/java/unpacked$java2" "$drivers/java/mariadb-3.jar"
  rm -rf "$drivers"/java/{apt,unpacked} "$drivers"/java/*.deb
  java_works || die "a JDK or MariaDB Connector/J is still missing"
fi
