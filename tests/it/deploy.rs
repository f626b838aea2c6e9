//! What is in `deploy/` and `examples/` agrees with the code.

mod chart;
mod line;
mod manifests;
mod rights;

use std::path::{Path, PathBuf};

use pgitops::api::ops_request::PostgresOpsRequest;
use pgitops::api::{ConfigRepository, Postgres, PostgresConfig};
use serde::de::DeserializeOwned;

/// `UPDATE=1` writes the definitions anew.
#[test]
fn definitions_are_those_that_the_code_prints() {
    for crd in pgitops::api::crds() {
        let file = crd.spec.names.kind.to_lowercase() + ".yaml";
        let path = root().join("deploy/crds").join(file);
        let printed = format!("---\n{}", serde_saphyr::to_string(&crd).unwrap());
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &printed).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == printed,
            "{} is old; write it anew with: UPDATE=1 cargo test --test it deploy",
            path.display()
        );
    }
}

#[test]
fn examples_are_of_our_kinds() {
    let example = |name: &str| root().join("examples").join(name);
    reads::<Postgres>(&example("manifests/postgres.yaml"));
    reads::<ConfigRepository>(&example("manifests/config-repository.yaml"));
    reads::<PostgresOpsRequest>(&example("manifests/reconfigure.yaml"));
    reads::<PostgresOpsRequest>(&example("manifests/restart.yaml"));
    reads::<PostgresConfig>(&example("config/orders.yaml"));
}

fn reads<T: DeserializeOwned>(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    if let Err(error) = serde_yaml::from_str::<T>(&text) {
        panic!("{}: {error}", path.display());
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
