//! What a Kubernetes API server does, as far as pgitops and its users rely on it: one set of cases
//! for the sandbox and for a real control plane.
//!
//! A case is a function over a [`Cluster`]. It does not know which server it speaks to, has a
//! namespace of its own, and leaves nothing in the rest of the cluster that another case could
//! stumble over. Where the two servers differ, the sandbox is wrong.

pub mod custom;
pub mod deletion;
pub mod line;
pub mod objects;
pub mod our_kinds;
pub mod patches;
pub mod pods;
pub mod small_kinds;
pub mod verbs;
pub mod watching;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use crate::kubectl::Kubectl;

/// Calls `$each!` with all cases, each as `file::function`.
macro_rules! cases {
    ($each:ident) => {
        $each! {
            objects::writes_conflict_by_revision,
            objects::dry_runs_store_nothing,
            objects::lists_come_in_consistent_pages,
            objects::selectors_choose,
            objects::names_are_generated,
            objects::one_of_many_gets_a_lease,
            patches::every_type_of_patch,
            patches::applies_own_fields_and_conflict,
            patches::fields_are_managed,
            patches::what_an_apply_no_longer_names_goes,
            watching::watches_resume_and_see_selectors,
            watching::watchers_start_by_list_and_by_stream,
            watching::a_controller_with_finalizer_and_events_works,
            deletion::an_owner_in_the_foreground_waits,
            deletion::dependents_follow_their_owner,
            deletion::a_namespace_goes_after_all_in_it,
            custom::a_definition_is_served_and_takes_its_objects_along,
            custom::objects_are_defaulted_and_pruned,
            custom::objects_are_judged_by_schema_and_rules,
            custom::status_is_a_part_of_its_own,
            custom::lists_by_key_are_owned_by_element,
            our_kinds::definitions_are_established,
            our_kinds::requests_keep_their_rules,
            our_kinds::databases_keep_their_rules,
            our_kinds::repositories_are_defaulted_and_pruned,
            our_kinds::statuses_and_generations,
            small_kinds::secrets_are_encoded_and_can_be_immutable,
            small_kinds::events_are_shown_with_their_objects,
            small_kinds::built_in_kinds_are_defaulted_and_validated,
            verbs::objects_are_created_read_changed_and_deleted,
            verbs::create_commands_work,
            verbs::wrong_fields_are_refused_and_warned_about,
            verbs::watches_print_rows_as_they_come,
            pods::a_pod_runs_is_logged_and_ends,
            pods::a_set_replaces_pods_only_when_they_are_deleted,
            pods::volumes_follow_their_objects,
        }
    };
}
pub(crate) use cases;

/// A server, and a namespace of it that is the case's own.
pub struct Cluster {
    pub client: Client,
    pub namespace: String,
    kubectl: Kubectl,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Makes the namespace of a case.
    pub async fn open(client: Client, kubeconfig: &Path, case: &str) -> Self {
        let namespace = case.replace('_', "-");
        let folder = tempfile::tempdir().unwrap();
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        let namespaces = Api::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        let kubectl = Kubectl {
            kubeconfig: kubeconfig.to_owned(),
            folder: folder.path().to_owned(),
            namespace: Some(namespace.clone()),
        };
        Self { client, namespace, kubectl, _folder: folder }
    }

    /// Objects of the case's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An API group that only this case defines kinds in.
    pub fn group(&self) -> String {
        format!("{}.example.com", self.namespace)
    }
}

impl Deref for Cluster {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

/// Deadline of what is waited for: generous, because builds run beside tests.
const LIMIT: Duration = Duration::from_secs(120);

/// Looks until there is a value; panics with the last words after a deadline.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + LIMIT;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(words) => {
                assert!(Instant::now() < deadline, "not after {LIMIT:?}: {what}: {words}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A ConfigMap.
pub fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> =
        data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// The status of a refusal.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> kube::core::Status {
    match result {
        Err(kube::Error::Api(status)) => *status,
        other => panic!("not refused: {other:?}"),
    }
}
