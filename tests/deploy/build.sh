#!/usr/bin/env bash
# Makes Helm available for the test of the chart: builds the version that go.mod pins, once per
# machine, and prints the path of the program. Needs Go and the Go module proxy the first time.
# Nothing is installed: the program lies in the user's cache, where the test looks for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

version=$(sed -n 's|^require helm.sh/helm/v3 ||p' go.mod)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/pgitops/helm-$version
if [ ! -x "$folder/helm" ]; then
  command -v go >/dev/null || { echo 'tests/deploy/build.sh: install Go 1.24 or newer' >&2; exit 1; }
  mkdir -p "$folder"
  # Built beside its place and renamed: a build that is interrupted leaves no half program.
  built=$(mktemp -d "$folder/build.XXXXXX")
  trap 'rm -rf "$built"' EXIT
  # The Kubernetes that `helm template` takes for granted: that of client-go, as in Helm's Makefile.
  minor=$(sed -n 's|^[[:space:]]*k8s.io/client-go v0\.\([0-9]*\)\..*|\1|p' go.mod)
  set=helm.sh/helm/v3
  go build -mod=readonly -trimpath -o "$built/helm" -ldflags "-s -w \
    -X $set/internal/version.version=$version \
    -X $set/pkg/lint/rules.k8sVersionMajor=1 -X $set/pkg/lint/rules.k8sVersionMinor=$minor \
    -X $set/pkg/chartutil.k8sVersionMajor=1 -X $set/pkg/chartutil.k8sVersionMinor=$minor" \
    helm.sh/helm/v3/cmd/helm
  mv "$built/helm" "$folder/helm"
fi
echo "$folder/helm"
