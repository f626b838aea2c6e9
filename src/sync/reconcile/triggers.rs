//! Which repositories something concerns: says when to look, never what to look at.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::names::{DatabaseRef, RepositoryRef, annotations};
use crate::api::{Claim, ConfigRepository, Postgres, PostgresOpsRequest};
use crate::sync::Context;

type Repositories = Vec<ObjectRef<ConfigRepository>>;

pub(super) fn reference(id: &RepositoryRef) -> ObjectRef<ConfigRepository> {
    ObjectRef::new(&id.name).within(&id.namespace)
}

impl Context {
    /// The repositories that a database concerns: those whose documents name it, and the one that
    /// holds the claim.
    pub(super) fn concerned(
        &self,
        database: &DatabaseRef,
        postgres: Option<&Postgres>,
    ) -> Repositories {
        let claim = postgres.and_then(|p| p.annotations().get(annotations::CLAIM));
        let claim = claim.and_then(|text| Claim::parse(text));
        let holder = claim.and_then(|claim| parse(&claim.repository_name));
        let concerned = self.memory.concerned(database);
        let all: BTreeSet<RepositoryRef> = concerned.into_iter().chain(holder).collect();
        all.iter().map(reference).collect()
    }

    /// The repositories that a request concerns.
    pub(super) fn asked_by(&self, request: &PostgresOpsRequest) -> Repositories {
        let mut all = self.concerned(&request.database(), None);
        let own = request.annotation(annotations::REPOSITORY).and_then(parse);
        let own = own.as_ref().map(reference);
        all.extend(own.filter(|own| !all.contains(own)).into_iter().collect::<Vec<_>>());
        all
    }

    /// The repositories that a Secret concerns.
    pub(super) fn configured_by(&self, namespace: &str, secret: &str) -> Repositories {
        let databases = self.databases.store().state();
        let named = databases.iter().filter(|postgres| {
            postgres.namespace().as_deref() == Some(namespace)
                && (postgres.spec.secret_name() == Some(secret)
                    || postgres.children().operator_config == secret)
        });
        named.flat_map(|postgres| self.concerned(&postgres.database(), Some(postgres))).collect()
    }
}

fn parse(id: &str) -> Option<RepositoryRef> {
    let (namespace, name) = id.split_once('/')?;
    Some(RepositoryRef { namespace: namespace.to_owned(), name: name.to_owned() })
}
