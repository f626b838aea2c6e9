#!/usr/bin/env bash
# The whole line on a real node: etcd, control plane, kubelet, kube-proxy, containerd, real
# containers, the installation of the README.
#   run.sh            ends with nothing left behind but what image.sh keeps for the next run
#   run.sh FOLDER     leaves the logs of all programs and containers in FOLDER, which must be new
#   PGITOPS=PROGRAM   the program that goes into the image, otherwise a debug build of this tree
#   IMAGE=ARCHIVE     the image itself, as containerfile.sh makes it of deploy/Containerfile
# Needs root on Debian 12. Everything runs in namespaces of its own (processes, mounts, network),
# which take processes, mounts, devices and packet rules with them, however this ends: README.md.
set -euo pipefail
export LC_ALL=C
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
tree=$(realpath "$here/../..")
binaries=$("$tree/tests/kubernetes/build.sh" --folder)

say() { printf '== %s\n' "$*"; }

die() {
  printf 'tests/cluster/run.sh: %s\n' "$*" >&2
  exit 1
}

# Milliseconds since 1970.
now() { echo $((${EPOCHREALTIME/./} / 1000)); }

# within SECONDS WHAT COMMAND…: until the command succeeds, or fails loudly.
within() {
  local seconds=$1 what=$2 last
  last=$(($(now) + seconds * 1000))
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(now)" -lt "$last" ] || die "$what: not so within $seconds s"
    sleep 0.05
  done
}

# timed WHAT COMMAND…: prints how long it took.
timed() {
  local what=$1 began
  shift
  began=$(now)
  "$@"
  printf '   %s: %s ms\n' "$what" $(($(now) - began))
}

install_tools() {
  . "$tree/examples/install-tools.sh"
  need conntrack conntrack
  need containerd containerd
  need debootstrap debootstrap
  need git git
  need ip iproute2
  need ipset ipset
  need iptables iptables
  need jq jq
  need openssl openssl
  need psql postgresql-client
  need runc runc
  [ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
  install_missing
  need_kubectl
}

# The control groups of pods: the one thing that lies outside of the namespaces.
control_groups() { compgen -G '/sys/fs/cgroup/kubepods' || compgen -G '/sys/fs/cgroup/*/kubepods'; }

remove_control_groups() {
  local group
  for group in $(control_groups); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
  ! control_groups >/dev/null
}

# What a kubelet sets for the whole machine, whatever namespaces it runs in.
kernel_settings=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops
  kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

remember_kernel_settings() {
  local name
  for name in "${kernel_settings[@]}"; do echo "$name=$(sysctl -n "$name")"; done
}

# Also after an error or a signal: with the first process of the namespaces goes everything in them.
clean_up() {
  trap '' INT TERM
  say 'ending what was begun'
  [ -z "${inside:-}" ] || kill -KILL "$inside" 2>/dev/null || true
  wait 2>/dev/null
  [ -z "$made_cni" ] || rmdir /var/lib/cni
  [ -z "$keep" ] || cp -r "$folder"/*.log "$folder"/node/{*.log,logs} "$keep" 2>/dev/null ||
    echo 'some of the logs are missing: the run ended before they began' >&2
  sysctl -q -p "$folder/kernel-settings" || echo 'kernel settings were not put back' >&2
  rm -rf "$folder"
  within 20 'the control groups of the pods are gone' remove_control_groups
}

# apart [OPTION…] COMMAND…: in namespaces of its own, which do not outlive this process.
apart() {
  local result=0
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$@" &
  inside=$!
  wait "$inside" || result=$?
  inside=
  return "$result"
}

outside() {
  [ "$(id -u)" = 0 ] || die 'namespaces and control groups need root; run this as root'
  if control_groups >/dev/null && ! remove_control_groups; then
    die 'a kubelet runs pods on this machine already; this one would meet its control groups'
  fi
  install_tools
  bash "$tree/tests/kubernetes/build.sh" --node
  local program='' archive='' enforcer
  enforcer=$(bash "$here/build.sh")
  if [ -n "${IMAGE:-}" ]; then
    archive=$(realpath "$IMAGE")
  elif [ -n "${PGITOPS:-}" ]; then
    program=$(realpath "$PGITOPS")
  else
    (cd "$tree" && cargo build --locked)
    program=$tree/target/debug/pgitops
  fi
  keep=${1:-} made_cni=
  [ -z "$keep" ] || mkdir "$keep" || die "$keep has to be a new folder"
  folder=$(mktemp -d)
  remember_kernel_settings >"$folder/kernel-settings"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  [ -d /var/lib/cni ] || { mkdir /var/lib/cni && made_cni=yes; }
  apart bash "$here/run.sh" --base "$folder"
  apart --net bash "$here/run.sh" --node "$folder" "$enforcer" "$program" "$archive"
}

# With the network of the machine, because packages are fetched.
base() {
  folder=$1
  . "$here/image.sh"
  make_base
}

# The first process of the namespaces of the node.
node() {
  folder=$1 enforcer=$2 program=$3 own_image=$4
  . "$here/image.sh"
  . "$here/node.sh"
  . "$here/line.sh"
  . "$here/policies.sh"
  . "$here/cases.sh"
  trap '[ $? = 0 ] || diagnose' EXIT
  say 'a node'
  timed 'images made' make_images
  start_node
  add_volumes
  run_cases
}

case "${1:-}" in
--base) base "$2" ;;
--node) node "${@:2}" ;;
-*) die "unknown argument $1; the argument is a folder" ;;
*) outside "$@" ;;
esac
