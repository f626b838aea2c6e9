//! A set that pods are made from: a StatefulSet, or a PetSet, which is one under another name.
//!
//! What the two kinds have in common, so that one controller carries out both. Leaves what a set
//! needs next to `stateful_set`. A PetSet's placement policy says on which node a pod may run; a
//! sandbox has one node, and nothing to place.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

use crate::api::PetSet;
use crate::cluster::client;

/// A set of either kind.
pub(super) struct Set {
    pub metadata: ObjectMeta,
    /// Refers to it as the controller of what it owns; `None` before it is stored.
    pub reference: Option<OwnerReference>,
    pub spec: StatefulSetSpec,
    pub status: Option<StatefulSetStatus>,
}

/// A kind whose objects are sets.
pub(super) trait Kind: client::Kind {
    /// The object as a set.
    fn into_set(self) -> Set;
}

impl Kind for StatefulSet {
    fn into_set(self) -> Set {
        let reference = self.controller_owner_ref(&());
        let Self { metadata, spec, status } = self;
        Set { metadata, reference, spec: spec.unwrap_or_default(), status }
    }
}

impl Kind for PetSet {
    fn into_set(self) -> Set {
        let reference = self.controller_owner_ref(&());
        let Self { metadata, spec, status } = self;
        Set { metadata, reference, spec: spec.set, status }
    }
}

impl Set {
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}
