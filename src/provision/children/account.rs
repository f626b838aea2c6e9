//! The pods' identity. It has no rights and its token is not mounted: an instance never speaks with
//! the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::Owner;

/// ServiceAccount `<db>`.
pub fn account(owner: &Owner) -> ServiceAccount {
    ServiceAccount {
        metadata: owner.child(&owner.names.database),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
