#!/usr/bin/env bash
# The lane of the Helm chart: makes Helm and kubectl available when this machine does not have them,
# lints the chart and compares what it renders with the overlays.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

. examples/install-tools.sh
need_kubectl
PGITOPS_HELM=$(tests/deploy/build.sh)
export PGITOPS_HELM
"$PGITOPS_HELM" lint --strict deploy/helm/pgitops
cargo test --locked --test it -- --ignored deploy::chart
