# Sourced by the install scripts: packages of Debian sid, fetched and unpacked
# into a folder with the system itself left as it is.
#
#   foreign_apt_in FOLDER   makes FOLDER/apt: lists and settings of its own
#   foreign_apt …           apt-get with those, of an empty system
#
# Debian's signatures are checked as for the system's own packages.

foreign_apt_in() {
  foreign=$1/apt
  mkdir -p "$foreign"/lists/partial "$foreign"/archives/partial
  : > "$foreign/status" # an empty system: apt then names the whole closure, libc included

  local mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
  printf 'deb [signed-by=%s] %s sid main\n' "$keyring" "${mirror:-http://deb.debian.org/debian}" > "$foreign/sources"

  # Read after the system's own settings, whose hooks would tidy the system's cache.
  cat > "$foreign/conf" << END
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::State "$foreign";
Dir::State::status "$foreign/status";
Dir::Cache "$foreign";
Dir::Etc::sourcelist "$foreign/sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
END
  foreign_apt update
}

foreign_apt() { apt-get -qq -c "$foreign/conf" "$@"; }
