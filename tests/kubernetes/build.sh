#!/usr/bin/env bash
# Makes the programs of a real Kubernetes, once per machine:
#   build.sh            etcd, kube-apiserver, kube-controller-manager, kube-scheduler
#   build.sh --node     kubelet and kube-proxy as well
#   build.sh --kubectl  kubectl alone, where no package brings one
#   build.sh --folder   makes nothing, prints the folder they belong in
#   build.sh --check    makes nothing, fails when something is missing
# The folder follows the KUBEBUILDER_ASSETS convention: that variable names it, otherwise it is
# pgitops/kubernetes-VERSION below the user's cache. What is there in this version stays as it is.
# Kubernetes is built from the Go modules pinned in go.mod; etcd is the one on the PATH, or is
# unpacked from the distribution's package without installing it, so that no service starts.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
version=$(sed -n 's,^require k8s\.io/kubernetes ,,p' "$here/go.mod")
folder=${KUBEBUILDER_ASSETS:-${XDG_CACHE_HOME:-$HOME/.cache}/pgitops/kubernetes-$version}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
cd "$here"
programs=(kube-apiserver kube-controller-manager kube-scheduler)
etcd=etcd

die() {
  echo "tests/kubernetes/build.sh: $1" >&2
  exit 1
}

case "${1:-}" in
'') ;;
--node) programs+=(kubelet kube-proxy) ;;
--kubectl) programs=(kubectl) etcd= ;;
--folder | --check) ;;
*) die "unknown argument $1; the arguments are --node, --kubectl, --folder and --check" ;;
esac

# What a program here says of its version; nothing when it is not there.
version_of() {
  [ -x "$folder/$1" ] || return 0
  case $1 in
  kubectl) "$folder/$1" version --client 2>/dev/null | sed -n 's/^Client Version: //p' ;;
  *) "$folder/$1" --version 2>/dev/null | sed -n 's/^Kubernetes //p' ;;
  esac
}

missing() {
  [ -z "$etcd" ] || [ -x "$folder/etcd" ] || echo etcd
  local program
  for program in "${programs[@]}"; do
    [ "$(version_of "$program")" = "$version" ] || echo "$program"
  done
}

# A folder that somebody else filled with another version is theirs.
refuse_other_versions() {
  local program found
  for program in "${programs[@]}"; do
    found=$(version_of "$program")
    [ -z "$found" ] || [ "$found" = "$version" ] || die \
      "$folder/$program is Kubernetes $found and the tests need $version; unset KUBEBUILDER_ASSETS or name another folder"
  done
}

require_go() {
  command -v go >/dev/null 2>&1 || die \
    "Kubernetes $version is built from source and there is no Go; install Go 1.24 or newer (https://go.dev/dl) and run this again"
  local found
  found=$(go env GOVERSION)
  found=${found#go}
  [ "$(printf '%s\n' 1.24 "$found" | sort -V | head -n 1)" = 1.24 ] || die \
    "Kubernetes $version needs Go 1.24 or newer and this is Go $found; install a newer one (https://go.dev/dl) and run this again"
}

# A copy into place in one step: whoever looks sees the whole program or none.
put() {
  install -m 755 "$1" "$folder/.$2.new"
  mv "$folder/.$2.new" "$folder/$2"
}

fetch_etcd_package() {
  # As who we are: the user that apt has for fetching cannot write here.
  local fetch=(apt-get -o "APT::Sandbox::User=$(id -un)" download -qq etcd-server)
  "${fetch[@]}" && return
  [ "$(id -u)" = 0 ] || return 1
  apt-get update -qq && "${fetch[@]}"
}

make_etcd() {
  local found
  if found=$(command -v etcd); then
    put "$found" etcd
    return
  fi
  command -v apt-get >/dev/null 2>&1 || die 'there is no etcd; put one on the PATH and run this again'
  (cd "$scratch" && fetch_etcd_package) || die \
    'the package etcd-server cannot be fetched; run "apt-get update" as root or put an etcd on the PATH, and run this again'
  dpkg-deb -x "$scratch"/etcd-server_*.deb "$scratch/etcd"
  put "$scratch/etcd/usr/bin/etcd" etcd
}

make_kubernetes() {
  local minor=${version#v1.}
  local stamp=k8s.io/component-base/version
  local flags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}"
  # Without C, so that a C compiler is not needed and the programs run on every libc.
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$flags" \
    -o "$scratch/" "k8s.io/kubernetes/cmd/$1"
  put "$scratch/$1" "$1"
  rm -f "$scratch/$1"
}

case "${1:-}" in
--folder) echo "$folder" && exit ;;
--check) [ -z "$(missing)" ] && exit || exit 1 ;;
esac
mkdir -p "$folder"
refuse_other_versions
[ -n "$(missing)" ] || exit 0

exec 9>"$folder/.lock"
flock -n 9 || { echo "waiting for another build in $folder" && flock 9; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for program in $(missing); do
  echo "making $program in $folder"
  if [ "$program" = etcd ]; then
    make_etcd
  else
    require_go
    make_kubernetes "$program"
  fi
done
