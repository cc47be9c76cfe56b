#!/bin/sh
# Runs a command in another system's folder (.sid), with the checkout in it at the same path. The mounts
# live in a namespace of their own and go with the command, so the folder can be deleted at any time.
# usage: tools/inside.sh ROOT DIRECTORY COMMAND...     (root only)
set -eu
exec unshare --mount --propagation private sh -c '
  set -eu
  root=$1 directory=$2
  shift 2
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  mount --rbind /sys "$root/sys"
  mount -t tmpfs tmpfs "$root/tmp"
  mkdir -p "$root$directory"
  mount --bind "$directory" "$root$directory"
  for shared in /etc/resolv.conf /etc/ssl/certs; do
    if [ -e "$shared" ] && [ -e "$root$shared" ]; then mount --bind "$shared" "$root$shared"; fi
  done
  exec chroot "$root" env -C "$directory" "$@"
' inside "$@"
