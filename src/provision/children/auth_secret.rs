//! The superuser's credentials. Made once and never overwritten; no owner reference, because who
//! keeps the data also needs the password.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};

use super::Owner;

/// The superuser.
pub const USERNAME: &str = "postgres";

/// Characters of a password: letters and digits only, so that it fits into any connection string
/// without escapes.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Random bytes that [`password`] needs: 24 characters of 62 are 142 bits.
pub const ENTROPY: usize = 24;

/// A password from random bytes. The bias of a byte modulo 62 costs less than a bit in all.
pub fn password(random: &[u8; ENTROPY]) -> SecretString {
    let character = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    SecretString::from(random.iter().map(character).collect::<String>())
}

/// Secret `<db>-auth`.
pub fn auth_secret(owner: &Owner, password: &SecretString) -> Secret {
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: owner.survivor(&owner.names.auth),
        type_: Some("kubernetes.io/basic-auth".to_owned()),
        data: Some(
            [
                ("username".to_owned(), text(USERNAME)),
                ("password".to_owned(), text(password.expose_secret())),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

/// The credentials in a Secret.
///
/// # Errors
/// Which key is missing or no text, in a sentence.
pub fn credentials(secret: &Secret) -> Result<(String, SecretString), String> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let key = |key: &str| -> Result<String, String> {
        let bytes = secret.data.as_ref().and_then(|keys| keys.get(key));
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
        let text = text.filter(|text| !text.is_empty() && !text.contains(['\0', '\n', '\r']));
        text.ok_or_else(|| format!("Secret {name}: key {key} is missing, empty or not one line"))
    };
    Ok((key("username")?, SecretString::from(key("password")?)))
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    #[test]
    fn a_secret_is_read_back_as_it_was_made() {
        let password = password(&[7; ENTROPY]);
        let secret = auth_secret(&Owner::of(&postgres(MINIMAL)), &password);
        let (username, read) = credentials(&secret).unwrap();
        assert_eq!(
            (username.as_str(), read.expose_secret()),
            ("postgres", "HHHHHHHHHHHHHHHHHHHHHHHH")
        );
        assert!(secret.metadata.owner_references.is_none());
        assert_eq!(secret.metadata.name.as_deref(), Some("orders-auth"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut secret = auth_secret(&Owner::of(&postgres(MINIMAL)), &"x".to_owned().into());
        secret.data.as_mut().unwrap().remove("password");
        assert!(credentials(&secret).unwrap_err().contains("key password is missing"));
    }
}
