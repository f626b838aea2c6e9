//! The Secrets with the certificates of the instances and of the controller.
//!
//! Two Secrets, because the pods may read the one that they mount: the CA's key and the
//! controller's certificate are in the other, which nothing mounts. Leaves making certificates to
//! `instance::certificates` and deciding when to [`due`].

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::instance::certificates::{Certificates, expires};

use super::Owner;

/// How long certificates are valid: a year, as a stolen one is of use to nobody without the
/// network of the pods.
pub const VALIDITY: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Certificates are renewed when this much is left: a quarter of a year is enough for people to
/// notice that it does not happen.
const RENEW_BEFORE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Certificate of the CA, in both Secrets.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// Key of the CA, in the client's Secret.
pub const CA_KEY: &str = "ca.key";
/// Certificate of the bearer.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of the bearer.
pub const KEY: &str = "tls.key";

/// What has to be done about the certificates.
#[derive(Clone, Debug)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// All new: something is missing or cannot be read.
    Make,
    /// New ones from the CA that is there.
    Renew {
        /// Certificate of the CA, in PEM.
        ca_certificate: String,
        /// Its key.
        ca_key: SecretString,
    },
}

/// Says whether certificates have to be made or renewed.
pub fn due(instance: Option<&Secret>, client: Option<&Secret>, now: Timestamp) -> Due {
    let (Some(instance), Some(client)) = (instance, client) else { return Due::Make };
    let whole = |secret: &Secret| [CA_CERTIFICATE, CERTIFICATE, KEY].map(|key| text(secret, key));
    let ([Some(ca), Some(server), Some(_)], [Some(other_ca), Some(of_client), Some(_)]) =
        (whole(instance), whole(client))
    else {
        return Due::Make;
    };
    let Some(ca_key) = text(client, CA_KEY) else { return Due::Make };
    let renew = || Due::Renew { ca_certificate: other_ca.clone(), ca_key: ca_key.clone().into() };
    if ca != other_ca {
        // The two were written one after the other, and only one of them was.
        return renew();
    }
    match (expires(&server), expires(&of_client)) {
        (Ok(server), Ok(of_client)) if now + RENEW_BEFORE < server.min(of_client) => Due::Nothing,
        (Ok(_), Ok(_)) => renew(),
        (Err(_), _) | (_, Err(_)) => Due::Make,
    }
}

/// The Secret that the pods mount.
pub fn instance(owner: &Owner, certificates: &Certificates) -> Secret {
    let name = &owner.names.instance_certificate;
    let Certificates { ca_cert, server_cert, server_key, .. } = certificates;
    secret(owner, name, ca_cert, server_cert, server_key)
}

/// The controller's Secret.
pub fn client(owner: &Owner, certificates: &Certificates) -> Secret {
    let name = &owner.names.client_certificate;
    let Certificates { ca_cert, ca_key, client_cert, client_key, .. } = certificates;
    let mut secret = secret(owner, name, ca_cert, client_cert, client_key);
    let key = ByteString(ca_key.expose_secret().as_bytes().to_vec());
    secret.data.get_or_insert_default().insert(CA_KEY.to_owned(), key);
    secret
}

fn secret(owner: &Owner, name: &str, ca: &str, certificate: &str, key: &SecretString) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: owner.child(name),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            [
                (CA_CERTIFICATE.to_owned(), bytes(ca)),
                (CERTIFICATE.to_owned(), bytes(certificate)),
                (KEY.to_owned(), bytes(key.expose_secret())),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

/// A key of a Secret as text.
pub fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    #[test]
    fn certificates_are_made_once_and_renewed_in_time() {
        let owner = Owner::of(&postgres(MINIMAL));
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let made = Certificates::generate(now, VALIDITY).unwrap();
        let (mut server, client) = (instance(&owner, &made), client(&owner, &made));
        assert!(matches!(due(None, None, now), Due::Make));
        assert!(matches!(due(Some(&server), None, now), Due::Make));
        assert!(matches!(due(Some(&server), Some(&client), now), Due::Nothing));
        let later = now + VALIDITY - RENEW_BEFORE;
        assert!(matches!(due(Some(&server), Some(&client), later), Due::Renew { .. }));
        assert!(text(&server, CA_KEY).is_none(), "pods must not get the CA's key");
        server.data.as_mut().unwrap().remove(KEY);
        assert!(matches!(due(Some(&server), Some(&client), now), Due::Make));
    }
}
