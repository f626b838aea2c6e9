#!/usr/bin/env bash
# Makes kube-router, the part of it that enforces network policies: builds the version that go.mod
# pins, once per machine, and prints the path of the program. Needs Go and the Go module proxy the
# first time. Nothing is installed: the program lies in the user's cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

package=github.com/cloudnativelabs/kube-router/v2
version=$(sed -n "s|^require $package ||p" go.mod)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pgitops/kube-router-$version
if [ ! -x "$folder/kube-router" ]; then
  command -v go >/dev/null || { echo 'tests/cluster/build.sh: install Go 1.24 or newer' >&2; exit 1; }
  mkdir -p "$folder"
  # Built beside its place and renamed: a build that is interrupted leaves no half program.
  built=$(mktemp -d "$folder/build.XXXXXX")
  trap 'rm -rf "$built"' EXIT
  CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags '-s -w' \
    -o "$built/kube-router" "$package/cmd/kube-router"
  mv "$built/kube-router" "$folder/kube-router"
fi
echo "$folder/kube-router"
