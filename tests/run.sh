#!/usr/bin/env bash
# The whole check, on a fresh Debian or Ubuntu machine with Rust:
# installs what is missing, then formatting, lints with warnings as errors, documentation, all tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. examples/install-tools.sh
need cc gcc libc6-dev
need git git
need psql postgresql-client
need_postgres
install_missing
need_kubectl

step() { printf '\n== %s\n' "$1"; }

step 'formatting'
cargo fmt --check
step 'lints'
cargo clippy --locked --all-targets --test kubernetes -- -D warnings
step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
step 'tests'
# The binary that the tests start is built first; two tests at a time: each may run five servers.
cargo build --locked
cargo test --locked -- --test-threads="${PGITOPS_TEST_THREADS:-2}" "$@"

step 'tests against a real control plane'
if [ $# -gt 0 ]; then
  echo 'not run: tests were chosen; cargo test --test kubernetes runs them'
elif tests/kubernetes/build.sh --check; then
  cargo test --locked --test kubernetes
else
  echo 'not run: its programs are not on this machine; tests/kubernetes/build.sh makes them (needs Go)'
fi

printf '\nnot run here: the Helm chart (tests/deploy/run.sh; needs Go)\n'
printf 'not run here: a whole node in real containers (tests/cluster/run.sh; needs root and Debian)\n'
