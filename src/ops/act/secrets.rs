//! Writes of the two Secrets that ops keeps: the memory of a rollout, and the operator's.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use crate::api::Postgres;
use crate::api::names::{ChildNames, INLINE_CONF, RENDERED_CONF, annotations, labels};
use crate::cluster::{self, Created};
use crate::ops::journal::{self, Journal};
use crate::ops::seen::Kept;
use crate::ops::step::Touched;

use super::{Actor, Error};

/// Begins the memory of a rollout: where there is none a new Secret, otherwise over the one of the
/// last rollout.
pub async fn keep(journal: &Journal, actor: &Actor<'_>) -> Result<Touched, Error> {
    let Some(database) = actor.database else { return Ok(Touched::Nothing) };
    match &actor.seen.journal {
        Kept::Journal(_, version) => write(journal, version.as_deref(), database, actor).await,
        Kept::Broken(_) => write(journal, None, database, actor).await,
        Kept::Nothing => match actor.cx.cluster.create(&secret(journal, database)).await? {
            Created::New(written) => Ok(Touched::Memory(Box::new(written))),
            // Somebody was faster; the next look reads what.
            Created::Exists => Err(conflict(database).into()),
        },
    }
}

/// Amends the memory.
pub async fn amend(journal: &Journal, actor: &Actor<'_>) -> Result<Touched, Error> {
    let Some(database) = actor.database else { return Ok(Touched::Nothing) };
    let version = match &actor.seen.journal {
        Kept::Journal(_, version) => version.as_deref(),
        Kept::Nothing | Kept::Broken(_) => return Err(conflict(database).into()),
    };
    write(journal, version, database, actor).await
}

async fn write(
    journal: &Journal,
    version: Option<&str>,
    database: &Postgres,
    actor: &Actor<'_>,
) -> Result<Touched, Error> {
    let name = names(database).previous_config;
    let data = BTreeMap::from([(journal::KEY, ByteString(journal.render().into_bytes()))]);
    let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
    let written = actor.cx.cluster.merge::<Secret>(&actor.id.namespace, &name, &patch).await?;
    Ok(Touched::Memory(Box::new(written)))
}

fn secret(journal: &Journal, database: &Postgres) -> Secret {
    let id = database.database();
    let labels = [
        (labels::NAME, labels::NAME_VALUE),
        (labels::INSTANCE, id.name.as_str()),
        (labels::MANAGED_BY, labels::MANAGED_BY_VALUE),
    ];
    // Goes with the database: there is nothing to go back to without it.
    let owner = OwnerReference {
        api_version: "kubedb.com/v1".to_owned(),
        kind: "Postgres".to_owned(),
        name: id.name.clone(),
        uid: database.uid().to_owned(),
        ..OwnerReference::default()
    };
    let annotation = (annotations::DATABASE_UID.to_owned(), database.uid().to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(names(database).previous_config),
            namespace: Some(id.namespace.clone()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            annotations: Some([annotation].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some([(journal::KEY.to_owned(), ByteString(journal.render().into_bytes()))].into()),
        ..Secret::default()
    }
}

/// Writes the operator's Secret.
pub async fn write_operator(
    inline: &str,
    file: &str,
    version: Option<&str>,
    actor: &Actor<'_>,
) -> Result<Touched, Error> {
    let Some(database) = actor.database else { return Ok(Touched::Nothing) };
    let name = names(database).operator_config;
    let data = BTreeMap::from([
        (INLINE_CONF, ByteString(inline.as_bytes().to_vec())),
        (RENDERED_CONF, ByteString(file.as_bytes().to_vec())),
    ]);
    let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
    let written = actor.cx.cluster.merge::<Secret>(&actor.id.namespace, &name, &patch).await?;
    Ok(Touched::Operator(Box::new(written)))
}

fn names(database: &Postgres) -> ChildNames {
    ChildNames::of(&database.database().name, database.uid())
}

fn conflict(database: &Postgres) -> cluster::Error {
    let (namespace, name) = (database.database().namespace, names(database).previous_config);
    cluster::Error::Conflict { what: format!("write Secret {namespace}/{name}") }
}
