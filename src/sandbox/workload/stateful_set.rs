//! What a StatefulSet needs next, and a PetSet, which follows the same rules.
//!
//! Pure: the set, its pods, claims and revisions in; creations, deletions and the new status out,
//! by the rules of the real controller for Parallel and OrderedReady, OnDelete and RollingUpdate
//! (with `partition`). Leaves carrying out to `workload`. Claims outlive scale-down and set.

mod revision;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::set::Set;
use revision::{current_revision, revision, revision_name, revision_of};

/// Label with the name of the revision that a pod was made from.
const REVISION: &str = "controller-revision-hash";

/// Wait before looking again for a claim that is on its way out: nothing tells of its end.
const CLAIM_AGAIN: Duration = Duration::from_millis(500);

/// What is there.
pub struct Observed {
    /// The set.
    pub set: Set,
    /// All pods of its namespace, by name.
    pub pods: BTreeMap<String, Pod>,
    /// All claims of its namespace: name, and whether it is on its way out.
    pub claims: BTreeMap<String, bool>,
    /// Its own revisions.
    pub revisions: Vec<ControllerRevision>,
}

/// One effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Record the template.
    CreateRevision(Box<ControllerRevision>),
    /// Make a pod's volume.
    CreateClaim(Box<PersistentVolumeClaim>),
    /// Make a pod.
    CreatePod(Box<Pod>),
    /// Remove a pod, if it is still that one.
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: Option<String>,
    },
}

/// What to do, and the status to report.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// The whole status.
    pub status: StatefulSetStatus,
    /// Look again after this, for `minReadySeconds`.
    pub again: Option<Duration>,
}

/// One ordinal: its pod, if it has one of ours.
struct Slot<'a> {
    name: String,
    pod: Option<&'a Pod>,
}

/// Decides the next actions.
pub fn decide(seen: &Observed, now: Timestamp) -> Decision {
    let spec = &seen.set.spec;
    let update = revision_name(&seen.set);
    let current = current_revision(seen, &update);
    let mut actions = Vec::new();
    if !seen.revisions.iter().any(|r| r.name_any() == update) {
        actions.push(Action::CreateRevision(Box::new(revision(seen, &update))));
    }
    let owned = owned(seen);
    let first = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let wanted = spec.replicas.unwrap_or(1).max(0);
    let slots: Vec<Slot<'_>> = (first..first + wanted)
        .map(|ordinal| {
            let name = format!("{}-{ordinal}", seen.set.name());
            Slot { pod: owned.get(name.as_str()).copied(), name }
        })
        .collect();
    let surplus: Vec<&Pod> = surplus(&owned, &slots, seen.set.name());
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let maker = Maker { seen, spec, current: &current, update: &update, first };
    let (missing, waits) = maker.pending_claims(&slots);
    actions.extend(missing);
    let settled = if parallel {
        fill_parallel(&maker, &slots, &surplus, &mut actions)
    } else {
        fill_in_order(&maker, &slots, &surplus, &mut actions)
    };
    if settled {
        actions.extend(maker.roll(&slots, parallel));
    }
    let (status, mut again) = status(seen, spec, &owned, (&current, &update), now);
    if waits {
        again = Some(again.map_or(CLAIM_AGAIN, |a| a.min(CLAIM_AGAIN)));
    }
    Decision { actions, status, again }
}

/// Pods whose controller is this set.
fn owned(seen: &Observed) -> BTreeMap<&str, &Pod> {
    let uid = seen.set.metadata.uid.as_deref();
    let ours = |o: &OwnerReference| o.controller == Some(true) && Some(o.uid.as_str()) == uid;
    let pods = seen.pods.iter().filter(|(_, p)| p.owner_references().iter().any(ours));
    pods.map(|(name, pod)| (name.as_str(), pod)).collect()
}

/// Owned pods that no ordinal wants, highest ordinal first.
fn surplus<'a>(owned: &BTreeMap<&str, &'a Pod>, slots: &[Slot<'_>], set: &str) -> Vec<&'a Pod> {
    let mut pods: Vec<(i32, &Pod)> = owned
        .iter()
        .filter(|(name, _)| !slots.iter().any(|slot| slot.name == **name))
        .map(|(name, pod)| (ordinal_of(name, set).unwrap_or(i32::MAX), *pod))
        .collect();
    pods.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
    pods.into_iter().map(|(_, pod)| pod).collect()
}

fn ordinal_of(name: &str, set: &str) -> Option<i32> {
    name.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// A pod that ended for good is replaced.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0))
}

/// Running, ready and not on its way out: the next in order may come.
fn is_healthy(pod: &Pod) -> bool {
    !is_ending(pod) && ready_since(pod).is_some()
}

fn delete(pod: &Pod) -> Action {
    Action::DeletePod { name: pod.name_any(), uid: pod.metadata.uid.clone() }
}

/// All at once. Returns whether every slot has a pod that stays.
fn fill_parallel(
    maker: &Maker<'_>,
    slots: &[Slot<'_>],
    surplus: &[&Pod],
    actions: &mut Vec<Action>,
) -> bool {
    let mut settled = true;
    for slot in slots {
        match slot.pod {
            Some(pod) if is_over(pod) && !is_ending(pod) => actions.push(delete(pod)),
            Some(pod) if !is_ending(pod) => continue,
            Some(_) => {}
            None => actions.extend(maker.make(slot)),
        }
        settled = false;
    }
    actions.extend(surplus.iter().filter(|p| !is_ending(p)).map(|p| delete(p)));
    settled
}

/// One after the other: up from the lowest, down from the highest, never past one not ready.
fn fill_in_order(
    maker: &Maker<'_>,
    slots: &[Slot<'_>],
    surplus: &[&Pod],
    actions: &mut Vec<Action>,
) -> bool {
    for slot in slots {
        match slot.pod {
            None => {
                actions.extend(maker.make(slot));
                return false;
            }
            Some(pod) if is_over(pod) && !is_ending(pod) => {
                actions.push(delete(pod));
                return false;
            }
            // One that is not ready is left alone unless its template is: that is rolled below.
            Some(pod) if !is_healthy(pod) => return maker.is_stale(slot) && !is_ending(pod),
            Some(_) => {}
        }
    }
    match surplus.first() {
        Some(pod) => {
            if !is_ending(pod) {
                actions.push(delete(pod));
            }
            false
        }
        None => true,
    }
}

/// Everything that pods are made from.
struct Maker<'a> {
    seen: &'a Observed,
    spec: &'a StatefulSetSpec,
    current: &'a str,
    update: &'a str,
    first: i32,
}

impl Maker<'_> {
    fn rolls(&self) -> bool {
        let kind = self.spec.update_strategy.as_ref().and_then(|u| u.type_.as_deref());
        kind != Some("OnDelete")
    }

    /// Ordinals below are kept on the current revision.
    fn partition(&self) -> i32 {
        let rolling = self.spec.update_strategy.as_ref().and_then(|u| u.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0)
    }

    fn ordinal(&self, slot: &Slot<'_>) -> i32 {
        ordinal_of(&slot.name, self.seen.set.name()).unwrap_or(0)
    }

    fn is_stale(&self, slot: &Slot<'_>) -> bool {
        let rolled = self.rolls() && self.ordinal(slot) >= self.first + self.partition();
        rolled && slot.pod.is_some_and(|p| revision_of(p) != Some(self.update))
    }

    /// The update: highest ordinal first, the next one only when all above are ready.
    fn roll(&self, slots: &[Slot<'_>], parallel: bool) -> Option<Action> {
        if !self.rolls() {
            return None;
        }
        for slot in slots.iter().rev() {
            let pod = slot.pod?;
            if self.is_stale(slot) {
                return (!is_ending(pod)).then(|| delete(pod));
            }
            if !is_healthy(pod) && (!parallel || self.ordinal(slot) >= self.partition()) {
                return None;
            }
        }
        None
    }

    /// Claims that pods which have not begun lack, and whether one of theirs is on its way out.
    fn pending_claims(&self, slots: &[Slot<'_>]) -> (Vec<Action>, bool) {
        let pending = slots.iter().filter(|slot| {
            let phase = slot.pod.and_then(|p| p.status.as_ref()).and_then(|s| s.phase.as_deref());
            phase == Some("Pending")
        });
        let mut missing = Vec::new();
        let mut waits = false;
        for slot in pending {
            for template in self.spec.volume_claim_templates.iter().flatten() {
                let name = format!("{}-{}", template.name_any(), slot.name);
                match self.seen.claims.get(&name) {
                    Some(ending) => waits |= ending,
                    None => {
                        let claim = Box::new(self.claim(template, name));
                        missing.push(Action::CreateClaim(claim));
                    }
                }
            }
        }
        (missing, waits)
    }

    /// The slot's pod and the claims it lacks. A pod below the partition is made from the current
    /// revision's template.
    fn make(&self, slot: &Slot<'_>) -> Vec<Action> {
        let mut actions = Vec::new();
        // A foreign pod of that name: nothing can be made until it is gone.
        if self.seen.pods.contains_key(&slot.name) {
            return actions;
        }
        let mut volumes = Vec::new();
        for template in self.spec.volume_claim_templates.iter().flatten() {
            let volume = template.name_any();
            let name = format!("{volume}-{}", slot.name);
            volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": name}}));
            if !self.seen.claims.contains_key(&name) {
                actions.push(Action::CreateClaim(Box::new(self.claim(template, name))));
            }
        }
        let old = self.rolls() && self.ordinal(slot) < self.first + self.partition();
        let revision = if old { self.current } else { self.update };
        if let Some(pod) = self.pod(slot, revision, volumes) {
            actions.push(Action::CreatePod(Box::new(pod)));
        }
        actions
    }

    fn claim(&self, template: &PersistentVolumeClaim, name: String) -> PersistentVolumeClaim {
        let mut claim = template.clone();
        claim.metadata.name = Some(name);
        claim.metadata.namespace = self.seen.set.metadata.namespace.clone();
        let selected = self.spec.selector.match_labels.clone().unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        claim.status = None;
        claim
    }

    fn pod(&self, slot: &Slot<'_>, revision: &str, volumes: Vec<Value>) -> Option<Pod> {
        let mut template = serde_json::to_value(&self.spec.template).ok()?;
        let kept = self.seen.revisions.iter().find(|r| r.name_any() == revision);
        if let Some(kept) = kept.and_then(|r| r.data.as_ref())
            && let Some(spec) = kept.0.pointer("/spec/template")
        {
            template = spec.clone();
        }
        let mut pod: Pod = serde_json::from_value(template).ok()?;
        let set = &self.seen.set;
        pod.metadata.name = Some(slot.name.clone());
        pod.metadata.namespace = set.metadata.namespace.clone();
        let owner = set.reference.clone();
        pod.metadata.owner_references =
            owner.map(|o| vec![OwnerReference { block_owner_deletion: Some(true), ..o }]);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(REVISION.to_owned(), revision.to_owned());
        labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), slot.name.clone());
        let ordinal = self.ordinal(slot).to_string();
        labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal);
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(slot.name.clone());
        spec.subdomain = self.spec.service_name.clone().filter(|name| !name.is_empty());
        let claims: Vec<k8s_openapi::api::core::v1::Volume> =
            serde_json::from_value(Value::Array(volumes)).ok()?;
        let all = spec.volumes.get_or_insert_default();
        all.retain(|v| !claims.iter().any(|c| c.name == v.name));
        all.extend(claims);
        Some(pod)
    }
}

fn status(
    seen: &Observed,
    spec: &StatefulSetSpec,
    owned: &BTreeMap<&str, &Pod>,
    (current, update): (&str, &str),
    now: Timestamp,
) -> (StatefulSetStatus, Option<Duration>) {
    let wait = i64::from(spec.min_ready_seconds.unwrap_or(0)) * 1000;
    let mut again: Option<Duration> = None;
    let (mut ready, mut available, mut on_current, mut on_update) = (0, 0, 0, 0);
    for pod in owned.values().filter(|p| !is_ending(p)) {
        on_current += i32::from(revision_of(pod) == Some(current));
        on_update += i32::from(revision_of(pod) == Some(update));
        if let Some(since) = ready_since(pod) {
            ready += 1;
            let left = wait - (now.as_millisecond() - since.as_millisecond());
            match u64::try_from(left) {
                Ok(left @ 1..) => {
                    let left = Duration::from_millis(left);
                    again = Some(again.map_or(left, |a| a.min(left)));
                }
                Ok(_) | Err(_) => available += 1,
            }
        }
    }
    let replicas = i32::try_from(owned.len()).unwrap_or(i32::MAX);
    let rolled = on_update == replicas && ready == replicas && replicas > 0;
    let before = seen.set.status.clone().unwrap_or_default();
    let status = StatefulSetStatus {
        observed_generation: seen.set.metadata.generation,
        replicas,
        ready_replicas: Some(ready),
        available_replicas: Some(available),
        current_replicas: Some(if rolled { on_update } else { on_current }),
        updated_replicas: Some(on_update),
        current_revision: Some(if rolled { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        collision_count: Some(before.collision_count.unwrap_or(0)),
        conditions: before.conditions,
    };
    (status, again)
}

#[cfg(test)]
mod tests {
    use super::super::set::Kind as _;
    use super::*;
    use crate::api::PetSet;
    use k8s_openapi::api::apps::v1::StatefulSet;

    /// A set `db` of three, its template's image, and pods as words: ordinal, then `r` ready,
    /// `p` pending, `e` ending, `f` failed, then `+` when of the new revision.
    fn observed(changes: Value, pods: &str) -> Observed {
        let mut set = json!({
            "metadata": {"name": "db", "namespace": "demo", "uid": "set-1", "generation": 4},
            "spec": {
                "replicas": 3, "serviceName": "db-pods",
                "selector": {"matchLabels": {"app": "db"}},
                "podManagementPolicy": "Parallel",
                "updateStrategy": {"type": "OnDelete"},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "postgres:15"}],
                             "volumes": [{"name": "data", "emptyDir": {}}]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            },
            "status": {"replicas": 0, "currentRevision": "db-old"},
        });
        json_patch::merge(&mut set, &json!({"spec": changes}));
        let set = serde_json::from_value::<StatefulSet>(set).unwrap().into_set();
        let update = revision_name(&set);
        let pods = pods.split_whitespace().map(|word| {
            let (ordinal, state) = word.split_at(1);
            let name = format!("db-{ordinal}");
            let revision = if state.ends_with('+') { update.as_str() } else { "db-old" };
            let phase = if state.starts_with('f') { "Failed" } else { "Running" };
            let ready = if state.starts_with('r') { "True" } else { "False" };
            let mut pod = json!({
                "metadata": {"name": name, "uid": name, "labels": {REVISION: revision},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet",
                        "name": "db", "uid": "set-1", "controller": true}]},
                "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
                    "lastTransitionTime": "1970-01-01T00:00:50Z"}]},
            });
            if state.starts_with('e') {
                pod["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:00Z");
            }
            (name, serde_json::from_value(pod).unwrap())
        });
        let pods = pods.collect();
        let revisions = vec![revision_named("db-old"), revision_named(&update)];
        let claims = [("data-db-0".to_owned(), false)].into();
        Observed { set, pods, claims, revisions }
    }

    fn revision_named(name: &str) -> ControllerRevision {
        let mut revision = ControllerRevision { revision: 1, ..ControllerRevision::default() };
        revision.metadata.name = Some(name.to_owned());
        revision
    }

    fn check(changes: Value, pods: &str, expected: &str) {
        let seen = observed(changes.clone(), pods);
        let decision = decide(&seen, Timestamp::from_second(60).unwrap());
        let words: Vec<String> = decision
            .actions
            .iter()
            .map(|action| match action {
                Action::CreateRevision(r) => format!("revision {}", r.revision),
                Action::CreateClaim(c) => format!("*{}", c.name_any()),
                Action::CreatePod(p) => format!("+{}", p.name_any()),
                Action::DeletePod { name, .. } => format!("-{name}"),
            })
            .collect();
        let s = &decision.status;
        let got = format!(
            "{}; {} ready {} available {} current {} updated {}",
            words.join(" "),
            s.replicas,
            s.ready_replicas.unwrap(),
            s.available_replicas.unwrap(),
            s.current_replicas.unwrap(),
            s.updated_replicas.unwrap(),
        );
        assert_eq!(got, expected, "{changes} {pods}");
    }

    #[test]
    fn parallel_makes_and_removes_all_at_once() {
        check(
            json!({}),
            "",
            "+db-0 *data-db-1 +db-1 *data-db-2 +db-2; 0 ready 0 available 0 current 0 updated 0",
        );
        check(json!({}), "0p 2r", "*data-db-1 +db-1; 2 ready 1 available 1 current 2 updated 0");
        check(json!({}), "0r 1e 2r", "; 3 ready 2 available 2 current 2 updated 0");
        check(json!({}), "0r 1f 2r", "-db-1; 3 ready 2 available 2 current 3 updated 0");
        check(
            json!({"replicas": 1}),
            "0r 1r 2p",
            "-db-2 -db-1; 3 ready 2 available 2 current 3 updated 0",
        );
        check(json!({"replicas": 0}), "0e", "; 1 ready 0 available 0 current 0 updated 0");
        check(
            json!({"minReadySeconds": 15}),
            "0r 1r 2r",
            "; 3 ready 3 available 0 current 3 updated 0",
        );
    }

    #[test]
    fn ordered_waits_for_the_one_before() {
        let ordered = || json!({"podManagementPolicy": "OrderedReady"});
        check(ordered(), "", "+db-0; 0 ready 0 available 0 current 0 updated 0");
        check(ordered(), "0p", "; 1 ready 0 available 0 current 1 updated 0");
        check(ordered(), "0r", "*data-db-1 +db-1; 1 ready 1 available 1 current 1 updated 0");
        let one = json!({"podManagementPolicy": "OrderedReady", "replicas": 1});
        check(one.clone(), "0r 1r 2r", "-db-2; 3 ready 3 available 3 current 3 updated 0");
        check(one, "0r 1r 2e", "; 3 ready 2 available 2 current 2 updated 0");
    }

    #[test]
    fn an_update_rolls_from_the_highest_unless_on_delete() {
        check(json!({}), "0r 1r 2r", "; 3 ready 3 available 3 current 3 updated 0");
        let rolling = || json!({"updateStrategy": {"type": "RollingUpdate"}});
        check(rolling(), "0r 1r 2r", "-db-2; 3 ready 3 available 3 current 3 updated 0");
        check(rolling(), "0r 1r 2p+", "; 3 ready 2 available 2 current 2 updated 1");
        check(rolling(), "0r 1r 2r+", "-db-1; 3 ready 3 available 3 current 2 updated 1");
        check(rolling(), "0r+ 1r+ 2r+", "; 3 ready 3 available 3 current 3 updated 3");
        let part =
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        check(part, "0r 1r 2r+", "; 3 ready 3 available 3 current 2 updated 1");
        let mut ordered = rolling();
        ordered["podManagementPolicy"] = json!("OrderedReady");
        check(ordered, "0p 1r 2r", "-db-2; 3 ready 2 available 2 current 3 updated 0");
    }

    #[test]
    fn a_pod_carries_its_identity() {
        let seen = observed(json!({"ordinals": {"start": 5}, "replicas": 1}), "");
        let decision = decide(&seen, Timestamp::UNIX_EPOCH);
        let Some(Action::CreatePod(pod)) = decision.actions.last() else { panic!() };
        assert_eq!(pod.name_any(), "db-5");
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "db-5");
        assert_eq!(pod.labels()["apps.kubernetes.io/pod-index"], "5");
        assert_eq!(Some(&pod.labels()[REVISION]), decision.status.update_revision.as_ref());
        assert_eq!(pod.owner_references()[0].uid, "set-1");
        assert_eq!(pod.owner_references()[0].kind, "StatefulSet");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("db-5"));
        assert_eq!(spec.subdomain.as_deref(), Some("db-pods"));
        let volumes = spec.volumes.as_ref().unwrap();
        assert_eq!(volumes.len(), 1, "a claim replaces the template's volume of that name");
        let claim = volumes[0].persistent_volume_claim.as_ref().unwrap();
        assert_eq!(claim.claim_name, "data-db-5");
    }

    #[test]
    fn a_pet_set_makes_the_pods_of_a_stateful_set_for_itself() {
        let written = json!({
            "apiVersion": "apps.k8s.appscode.com/v1", "kind": "PetSet",
            "metadata": {"name": "db", "namespace": "demo", "uid": "set-2"},
            "spec": {
                "replicas": 2, "serviceName": "db-pods", "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": "db"}},
                "podPlacementPolicy": {"name": "default"},
                "updateStrategy": {"type": "OnDelete"},
                "template": {"metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "postgres:15"}]}},
            },
        });
        let set = serde_json::from_value::<PetSet>(written).unwrap().into_set();
        let mut seen = observed(json!({}), "");
        let plain = decide(&seen, Timestamp::UNIX_EPOCH).actions.len();
        seen.set = set;
        seen.revisions.clear();
        let actions = decide(&seen, Timestamp::UNIX_EPOCH).actions;
        assert!(plain > 0 && actions.len() == 3, "a revision and two pods: {actions:?}");
        let Action::CreateRevision(revision) = &actions[0] else { panic!() };
        let Action::CreatePod(pod) = &actions[2] else { panic!() };
        for owner in [&revision.owner_references()[0], &pod.owner_references()[0]] {
            let of = (owner.api_version.as_str(), owner.kind.as_str(), owner.uid.as_str());
            assert_eq!(of, ("apps.k8s.appscode.com/v1", "PetSet", "set-2"));
        }
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], "db-1");
    }

    #[test]
    fn a_new_template_is_recorded_once() {
        let mut seen = observed(json!({}), "0r 1r 2r");
        assert!(decide(&seen, Timestamp::UNIX_EPOCH).actions.is_empty());
        seen.revisions.truncate(1);
        let actions = decide(&seen, Timestamp::UNIX_EPOCH).actions;
        assert!(matches!(&actions[..], [Action::CreateRevision(r)] if r.revision == 2));
    }

    #[test]
    fn a_pod_that_has_not_begun_gets_a_claim_that_went() {
        let mut seen = observed(json!({"replicas": 1}), "0p");
        seen.pods.get_mut("db-0").unwrap().status.as_mut().unwrap().phase = Some("Pending".into());
        let decision = decide(&seen, Timestamp::UNIX_EPOCH);
        assert!(decision.actions.is_empty() && decision.again.is_none());
        seen.claims.insert("data-db-0".to_owned(), true);
        assert_eq!(decide(&seen, Timestamp::UNIX_EPOCH).again, Some(CLAIM_AGAIN));
        seen.claims.clear();
        let actions = decide(&seen, Timestamp::UNIX_EPOCH).actions;
        assert!(matches!(&actions[..], [Action::CreateClaim(c)] if c.name_any() == "data-db-0"));
    }

    #[test]
    fn a_foreign_pod_of_the_name_is_not_touched() {
        let mut seen = observed(json!({"replicas": 1}), "0r");
        seen.pods.get_mut("db-0").unwrap().metadata.owner_references = None;
        assert!(decide(&seen, Timestamp::UNIX_EPOCH).actions.is_empty());
    }
}
