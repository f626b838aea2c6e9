//! Words: the Kubernetes objects that the loops meet in, and the document in git.
//!
//! Types, names and their meaning only. Leaves what is desired to `sync`, what runs to `ops`, and
//! the children of a database to `provision`. Never awaits, does I/O, reads a clock or logs.

pub mod claim;
pub mod conditions;
pub mod config_repository;
pub mod duration;
pub mod names;
pub mod ops_request;
pub mod ownership;
pub mod pet_set;
pub mod postgres;
pub mod postgres_config;

pub use claim::Claim;
pub use conditions::Condition;
pub use config_repository::ConfigRepository;
pub use names::{CommitId, DatabaseRef, RepositoryRef, RequestName, Sequence};
pub use ops_request::PostgresOpsRequest;
pub use pet_set::PetSet;
pub use postgres::Postgres;
pub use postgres_config::PostgresConfig;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The definitions of our three kinds, in the order in which they are to be installed.
///
/// Beside a real KubeDB only `ConfigRepository` is ours to install.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![Postgres::crd(), PostgresOpsRequest::crd(), ConfigRepository::crd()]
}
