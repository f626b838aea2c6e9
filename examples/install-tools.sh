# Installs what a command of ours needs and the machine lacks. Sourced, not run:
#   need COMMAND PACKAGE…   adds the packages when there is no such command
#   need_kubectl            puts a kubectl that is new enough on the PATH
#   install_missing         installs what was added, as root or through sudo
# Works on Debian and Ubuntu. PostgreSQL is kept from starting a server of its own.

missing=()

need() {
  local command=$1
  shift
  command -v "$command" >/dev/null 2>&1 || missing+=("$@")
}

need_postgres() {
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
}

# The tests use what kubectl has since 1.28; Debian 12 packages 1.20, Ubuntu none at all.
kubectl_needed=1.28

is_new_enough() {
  [ -n "$1" ] && [ "$(printf '%s\n' "$kubectl_needed" "$1" | sort -V | head -n 1)" = "$kubectl_needed" ]
}

# Version of the kubectl on the PATH; nothing when there is none.
kubectl_version() {
  kubectl version --client -o json 2>/dev/null | sed -n 's/.*"gitVersion": *"v\([0-9.]*\).*/\1/p'
}

need_kubectl() {
  is_new_enough "$(kubectl_version)" && return
  local root folder id
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  folder=${XDG_CACHE_HOME:-$HOME/.cache}/pgitops/kubectl
  PATH=$folder/usr/bin:$PATH
  is_new_enough "$(kubectl_version)" && return
  id=$(. /etc/os-release && echo "$ID")
  if [ "$id" = debian ]; then
    echo "installing: kubectl of Debian's newest release, in $folder"
    kubectl_of_debian "$folder"
  else
    echo 'installing: kubectl, built from source (some minutes)'
    need go golang-go
    install_missing
    missing=()
    bash "$root/tests/kubernetes/build.sh" --kubectl
    PATH=$(bash "$root/tests/kubernetes/build.sh" --folder):$PATH
  fi
  is_new_enough "$(kubectl_version)" && return
  echo "kubectl $kubectl_needed or newer is needed (https://kubernetes.io/docs/tasks/tools)" >&2
  return 1
}

# From the mirror that this machine uses, checked by apt as any other package; only unpacked.
kubectl_of_debian() {
  local scratch mirror
  as_root apt-get update -qq
  mirror=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
    sed -n 's/^Debian|//p' | head -n 1)
  scratch=$(mktemp -d)
  mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial" "$1"
  echo "deb ${mirror:?no Debian mirror among the sources of apt} stable main" >"$scratch/sources.list"
  local apt=(apt-get -qq -o "Dir::Etc::SourceList=$scratch/sources.list" -o Dir::Etc::SourceParts=-
    -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache"
    -o "APT::Sandbox::User=$(id -un)")
  (cd "$scratch" && "${apt[@]}" update && "${apt[@]}" download kubectl && dpkg-deb -x kubectl_*.deb "$1")
  rm -rf "$scratch"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing: ${missing[*]}"
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
