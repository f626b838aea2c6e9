//! Admission on KubeDB's objects says no to our claim: only a real API server has admission.
//!
//! KubeDB's webhook looks at the whole object whenever anything of it is written, so that an old
//! fault of it refuses our annotation too. That is told, stands in no other database's way, and
//! goes on when the fault is mended.

use serde_json::json;

use crate::conformance::{Cluster, eventually};
use crate::kubectl::Kubectl;
use crate::kubedb::{Beside, cases};

const POLICY: &str = "stands-for-the-webhook";

/// Runs the case, on a cluster that has KubeDB's definitions.
pub async fn a_refused_claim_is_told(c: &Cluster) {
    let b = Beside::start(c).await;
    for database in ["orders", "shipping"] {
        b.kubedb.database(database, cases::spec("16.4", json!({}))).await;
    }
    let anywhere = Kubectl { namespace: None, ..Kubectl::clone(c) };
    let said = "the storage class gold is not there";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["kubedb.com"],
                "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["postgreses"]}]},
            "validations": [{"message": said, "expression":
                "object.metadata.name != 'orders' || \
                 !('pgitops.dev/claim' in object.metadata.?annotations.orValue({}))"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": POLICY},
        "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
    });
    anywhere.apply(&policy.to_string()).await;
    anywhere.apply(&binding.to_string()).await;
    let annotate = "annotate pg orders pgitops.dev/claim=x --dry-run=server";
    eventually("admission says no", || async {
        match c.run(annotate).await {
            Err(words) if words.contains(said) => Ok(()),
            Err(words) | Ok(words) => Err(words),
        }
    })
    .await;
    let first = b.merge("orders", "work_mem: 16MB").await;
    b.held("orders", said).await;
    let note = b.note(&first, "HELD").await;
    assert!(note.contains(said), "{note}");
    assert_eq!(b.look("orders").await, 0);
    // One restart at a time, and by name its turn would come first.
    let second = b.merge("shipping", "work_mem: 16MB").await;
    let name = b.asked("shipping").await;
    b.kubedb.carry_out(&name).await;
    b.note(&second, "APPLIED").await;
    for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
        c.ok(&format!("delete {kind} {POLICY}")).await;
    }
    let name = b.asked("orders").await;
    b.kubedb.carry_out(&name).await;
    b.note(&first, "APPLIED").await;
    b.end().await;
}
