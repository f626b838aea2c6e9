#!/usr/bin/env bash
# Builds deploy/Containerfile and leaves the image in an archive, for run.sh or for `docker load`:
#   containerfile.sh ARCHIVE
# Needs root on Debian 12 and about half an hour. It runs in namespaces of its own, which take its
# mounts and processes with them, however this ends. The images that the Containerfile begins with are
# pulled; where no registry is reached they are made here, which is said: Debian 12 by debootstrap,
# and for the build the same with a C compiler and the Rust of this machine. A stand-in has fewer
# packages than what it stands for: what builds in it builds in the other.
set -euo pipefail
export LC_ALL=C
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
tree=$(realpath "$here/../..")
built=docker.io/library/pgitops:0.1.0
debian=docker.io/library/debian:bookworm-slim

die() {
  printf 'tests/cluster/containerfile.sh: %s\n' "$*" >&2
  exit 1
}

# Its store is of this run only: nothing is left among the images of this machine.
builder() { buildah --root "$folder/images" --runroot "$folder/run" "$@"; }

# commit_base NAME FOLDER [SETTING…]
commit_base() {
  local name=$1 root=$2 container
  shift 2
  container=$(builder from scratch)
  tar -C "$root" -cf "$folder/base.tar" .
  builder add -q "$container" "$folder/base.tar" / >/dev/null
  [ $# = 0 ] || builder config "$@" "$container"
  builder commit -q "$container" "$name" >/dev/null
  builder rm "$container" >/dev/null
  rm -rf "$root" "$folder/base.tar"
}

bootstrap() {
  debootstrap --variant=minbase "$@" bookworm "$folder/root" >"$folder/debootstrap.log" 2>&1 ||
    die "debootstrap failed: $(tail -n 3 "$folder/debootstrap.log")"
}

stand_in_debian() {
  bootstrap
  commit_base "$debian" "$folder/root"
}

stand_in_rust() {
  local toolchain=$folder/root/usr/local/toolchain certificates=usr/local/share/ca-certificates
  bootstrap --include=ca-certificates,gcc,libc6-dev
  cp -a "$sysroot/." "$toolchain"
  # What this machine trusts beyond Debian's own, for the registry of crates.
  cp "/$certificates"/*.crt "$folder/root/$certificates/" 2>/dev/null || true
  chroot "$folder/root" update-ca-certificates >/dev/null 2>&1
  commit_base "$rust" "$folder/root" --env CARGO_HOME=/usr/local/cargo \
    --env PATH=/usr/local/toolchain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

# The Rust of this machine, of the version that the Containerfile names.
find_rust() {
  local version=${rust##*:}
  sysroot=$(rustc --print sysroot) || die 'there is no rustc on the PATH; install Rust by rustup'
  [ -x "$sysroot/bin/cargo" ] || die "there is no cargo in $sysroot; install Rust by rustup"
  case $("$sysroot/bin/rustc" --version) in
  "rustc ${version%%-*}."*) ;;
  *) die "the Rust in $sysroot is not ${version%%-*}, which the Containerfile names" ;;
  esac
}

# base NAME STAND-IN
base() {
  ! timeout 900 buildah --root "$folder/images" --runroot "$folder/run" pull -q "$1" \
    >/dev/null 2>&1 || return 0
  echo "== $1 cannot be pulled here: a stand-in is made"
  "$2"
}

[ $# = 1 ] || die 'the argument is the archive that is to be made'
[ "$(id -u)" = 0 ] || die 'building an image takes root here; run this as root'
if [ -z "${CONTAINERFILE_APART:-}" ]; then
  export CONTAINERFILE_APART=yes
  exec unshare --mount --pid --fork --kill-child --mount-proc bash "$here/containerfile.sh" "$1"
fi
archive=$(realpath "$1")
[ ! -e "$archive" ] || die "$archive is there already"
. "$tree/examples/install-tools.sh"
need buildah buildah
need debootstrap debootstrap
install_missing
folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
rust=docker.io/library/$(sed -n 's/^FROM \(rust:[^ ]*\) .*/\1/p' "$tree/deploy/Containerfile")

find_rust
base "$debian" stand_in_debian
base "$rust" stand_in_rust
echo '== building deploy/Containerfile'
builder bud --isolation chroot --network host --pull-never -f "$tree/deploy/Containerfile" \
  -t "$built" "$tree"
builder push -q "$built" "docker-archive:$archive:$built"
echo "== the image: $(stat -c %s "$archive") bytes in $archive"
