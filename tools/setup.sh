#!/bin/sh
# Installs by apt what the build and the tests need and this machine lacks; silent when nothing is missing.
# Exit code 3: something is missing and cannot be installed here; the message says what to install.
set -eu

required=""   # without these nothing builds
useful=""     # without these a few tests or checks are skipped or slower
python=${PYTHON:-python3}

has() { command -v "$1" >/dev/null 2>&1; }

has_header() {
  printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" |
    c++ -I/usr/share/include/llhttp -E -x c++ - >/dev/null 2>&1
}

# Debian 12 keeps llhttp in Node's package, later releases in one of its own.
llhttp_package() {
  if has apt-cache && apt-cache show libllhttp-dev >/dev/null 2>&1
  then echo libllhttp-dev; else echo node-llhttp; fi
}

has_library() { ls /usr/lib/*/"$1" >/dev/null 2>&1; }

python_can() { "$1" -c "$2" >/dev/null 2>&1; }
finds_headers='import os, sysconfig; open(os.path.join(sysconfig.get_path("include"), "Python.h"))'

find_missing() {
  required="" useful=""
  has c++ || required="$required g++"
  has cmake || required="$required cmake"
  has ninja || required="$required ninja-build"
  has "$python" || required="$required python3"
  # The system's own interpreter is tested beside the default one, so it gets its headers too.
  for interpreter in "$python" /usr/bin/python3; do
    if [ "$interpreter" = "$python" ] || [ -x "$interpreter" ]; then
      python_can "$interpreter" "$finds_headers" || required="$required python3-dev"
      python_can "$interpreter" 'import ensurepip, venv' || required="$required python3-venv"
    fi
  done
  has_header asio.hpp || required="$required libasio-dev"
  has_header llhttp.h || required="$required $(llhttp_package)"
  has_header gtest/gtest.h || required="$required libgtest-dev"
  has_header benchmark/benchmark.h || required="$required libbenchmark-dev"
  has wrk || useful="$useful wrk"
  has ccache || useful="$useful ccache"
  has chromium || useful="$useful chromium"   # moored doctor's page is opened in it
  has clang++ || useful="$useful clang"   # make lint's analysis of locks
  # For programs that the tests run unmodified: GStreamer and Gio, PortAudio, Qt.
  python_can /usr/bin/python3 'import gi; gi.require_version("Gst", "1.0")' ||
    useful="$useful python3-gi gir1.2-gstreamer-1.0"
  has_library libportaudio.so.2 || useful="$useful libportaudio2"
  has_library libEGL.so.1 || useful="$useful libegl1"
  required=$(echo $(printf '%s\n' $required | sort -u))
}

stop() {
  echo "setup: missing: $required" >&2
  echo "setup: $1 Install them with: apt-get install $required" >&2
  exit 3
}

find_missing
[ -n "$required$useful" ] || exit 0
if ! has apt-get; then
  [ -z "$required" ] || stop "this system has no apt-get (these are Debian's names for the packages)."
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  [ -z "$required" ] || stop "installing needs root."
  echo "setup: going on without:$useful" >&2
  exit 0
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -qq -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
$apt update >"$log" 2>&1 || cat "$log" >&2   # an unreachable extra source does not matter
find_missing                                 # the package lists now know where llhttp is
echo "setup: installing" $required $useful >&2
if ! $apt install --no-install-recommends $required $useful >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  stop "apt-get could not install them."
fi
find_missing
[ -z "$required" ] || stop "apt-get installed its packages, but these are still not found."
