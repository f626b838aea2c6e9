//! A database for the tests of this room.

use crate::api::Postgres;

/// The minimal manifest's spec.
pub const MINIMAL: &str =
    "{version: '15', replicas: 3, storage: {resources: {requests: {storage: 1Gi}}}}";

/// Database `demo/orders` with this spec, as it would be read. A text that is no spec gives one
/// without a version, which every test notices.
pub fn postgres(spec: &str) -> Postgres {
    let mut postgres = Postgres::new("orders", serde_yaml::from_str(spec).unwrap_or_default());
    postgres.metadata.namespace = Some("demo".to_owned());
    postgres.metadata.uid = Some("6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned());
    postgres.metadata.generation = Some(1);
    postgres
}
