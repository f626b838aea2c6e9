#!/usr/bin/env bash
# From a clone to a running demonstration, on a fresh Debian or Ubuntu machine with Rust:
# installs PostgreSQL and a C compiler when missing, builds, runs `pgitops demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. examples/install-tools.sh
need cc gcc libc6-dev
need git git
need_postgres
install_missing

cargo build --locked
exec target/debug/pgitops demo "$@"
