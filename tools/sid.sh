#!/bin/sh
# Makes .sid: a Debian sid system in a folder, which brings CPython 3.13 and later and the newest g++.
# Made once and reused; `rm -rf .sid` undoes it. MIRROR and MOORED_SID name another mirror and folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=${MOORED_SID:-$(dirname "$here")/.sid}
mirror=${MIRROR:-http://deb.debian.org/debian}
tools="g++ ninja-build cmake ccache libasio-dev libllhttp-dev libgtest-dev libbenchmark-dev wrk"

if [ "$(id -u)" -ne 0 ]; then
  echo "sid: making a system folder needs root" >&2
  exit 3
fi
if ! command -v debootstrap >/dev/null; then
  apt-get -qq -o DPkg::Lock::Timeout=300 update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends \
    debootstrap debian-archive-keyring >/dev/null
fi

if [ ! -e "$folder/.ready" ]; then
  echo "sid: making $folder (1 GB, a few minutes)" >&2
  if [ ! -x "$folder/usr/bin/apt-get" ] || [ -d "$folder/debootstrap" ]; then
    mkdir -p "$folder"
    debootstrap --variant=minbase --include=ca-certificates sid "$folder" "$mirror" >"$folder/log" 2>&1 ||
      { tail "$folder/log" >&2; exit 1; }
  fi
  # A snapshot of the archive may be some weeks old: its signature still counts, its date does not.
  sh "$here/inside.sh" "$folder" "$(dirname "$here")" sh -euc '
    export DEBIAN_FRONTEND=noninteractive
    apt="apt-get -qq -y -o Acquire::Check-Valid-Until=false -o Dpkg::Use-Pty=0"
    $apt update
    pythons=$(apt-cache search --names-only "^python3\.[0-9]+-dev$" | cut -d" " -f1)
    venvs=$(echo "$pythons" | sed s/-dev/-venv/)
    suites=$(echo "$pythons" | sed "s/-dev/-testsuite/; s/^/lib/")
    $apt install --no-install-recommends '"$tools"' $pythons $venvs $suites
  ' >>"$folder/log" 2>&1 || { tail "$folder/log" >&2; exit 1; }
  touch "$folder/.ready"
fi
python3 "$here/interpreters.py"
