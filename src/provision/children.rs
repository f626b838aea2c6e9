//! The objects that a database consists of, all of them, from one validated value.
//!
//! A file per object below `children/`. What holds data or a password (volume claims, the auth
//! Secret) has no owner reference, so that nothing but `deletionPolicy` decides about it; all
//! others go with the `Postgres`. Names and labels are KubeDB's. Leaves applying to `act`; random
//! things (password, certificates) come in as arguments. Never puts a version of pgitops anywhere:
//! an upgrade must not change a pod template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::names::{ChildNames, annotations, labels};
use crate::api::{DatabaseRef, Postgres};

use super::blueprint::Blueprint;
use workload::Workload;

pub mod account;
pub mod auth_secret;
pub mod budget;
pub mod certificates;
pub mod operator_config;
pub mod overlay;
pub mod pod;
pub mod services;
pub mod workload;

/// Whose children they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Namespace and name.
    pub database: DatabaseRef,
    /// UID of the object.
    pub uid: String,
    /// Names of the children.
    pub names: ChildNames,
}

/// The children that are applied whenever they are not as they should be. Secrets are not among
/// them: those are made once.
#[derive(Clone, Debug)]
pub struct Children {
    /// Identity of the pods; `None`: the owner names one.
    pub account: Option<ServiceAccount>,
    /// Gives every pod a name, Ready or not.
    pub pods: Service,
    /// Leads to the standbys; `None` where there are none.
    pub standbys: Option<Service>,
    /// How many nodes may be drained at a time.
    pub budget: PodDisruptionBudget,
    /// The nodes.
    pub workload: Workload,
}

impl Children {
    /// Everything that the blueprint asks for. `nodes` is how many there may be now; `live` is the
    /// workload as it is.
    pub fn of(blueprint: &Blueprint, nodes: i32, live: Option<&Workload>) -> Self {
        let owner = &blueprint.owner;
        Self {
            account: (!blueprint.own_account).then(|| account::account(owner)),
            pods: services::pods(owner),
            standbys: (nodes > 1).then(|| services::standbys(owner)),
            budget: budget::budget(owner),
            workload: workload::workload(blueprint, nodes, live),
        }
    }
}

impl Owner {
    /// The owner of a database's children.
    pub fn of(postgres: &Postgres) -> Self {
        Self {
            database: postgres.database(),
            uid: postgres.uid().to_owned(),
            names: postgres.children(),
        }
    }

    /// What selects the pods.
    pub fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::NAME.to_owned(), labels::NAME_VALUE.to_owned()),
            (labels::INSTANCE.to_owned(), self.database.name.clone()),
            (labels::MANAGED_BY.to_owned(), labels::MANAGED_BY_VALUE.to_owned()),
        ])
    }

    /// Labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.selector();
        all.insert(labels::COMPONENT.to_owned(), "database".to_owned());
        all
    }

    /// Metadata of a child that goes with the `Postgres`.
    pub fn child(&self, name: &str) -> ObjectMeta {
        let reference = OwnerReference {
            api_version: "kubedb.com/v1".to_owned(),
            kind: "Postgres".to_owned(),
            name: self.database.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        ObjectMeta { owner_references: Some(vec![reference]), ..self.survivor(name) }
    }

    /// Metadata of a child that stays when the `Postgres` goes.
    pub fn survivor(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.database.namespace.clone()),
            labels: Some(self.labels()),
            ..ObjectMeta::default()
        }
    }

    /// The same, with the database's UID in an annotation: it tells a Secret of this database from
    /// one that an earlier database of this name left behind.
    pub fn marked(&self, mut metadata: ObjectMeta) -> ObjectMeta {
        let mark = (annotations::DATABASE_UID.to_owned(), self.uid.clone());
        metadata.annotations.get_or_insert_default().extend([mark]);
        metadata
    }

    /// What follows a pod's name in DNS.
    pub fn domain(&self) -> String {
        format!("{}.{}.svc", self.names.pods_service, self.database.namespace)
    }
}

/// Name of the volume claim of pod `ordinal`: the StatefulSet controller's rule.
pub fn claim_of(database: &str, ordinal: i32) -> String {
    format!("{}-{database}-{ordinal}", pod::DATA_VOLUME)
}
