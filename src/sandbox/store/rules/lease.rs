//! Leases: numbers that can be.

use crate::sandbox::store::refusal::Cause;
use serde_json::Value;

/// What is wrong with a lease.
pub fn judge(lease: &Value) -> Vec<Cause> {
    let spec = &lease["spec"];
    let mut causes = Vec::new();
    for (field, least, why) in [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ] {
        if spec[field].as_i64().is_some_and(|number| number < least) {
            causes.push(Cause::invalid(format!("spec.{field}"), &spec[field], why));
        }
    }
    causes
}
