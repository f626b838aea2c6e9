//! A CA of its own for each database, the instances' certificate and the controller's.
//!
//! The CA's key and the controller's certificate stay with the controller; pods get the server's
//! certificate, its key and the CA's certificate. Leaves storing and renewing to the caller.
//! Reads no clock: when a certificate begins to be valid is a parameter.

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use super::{CONTROLLER_NAME, SERVER_NAME};

/// How long a CA is valid. Longer than any database is likely to keep its first one; the
/// certificates it signs live as long as the caller says.
const CA_VALIDITY: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);
/// Certificates are valid from a little earlier, for clocks that are behind.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_hours(1);

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Key or certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// Not a certificate.
    #[error("read a certificate: {0}")]
    Read(String),
}

/// All certificates of one database, in PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The CA's certificate. It goes to both ends.
    pub ca_cert: String,
    /// The CA's key.
    pub ca_key: SecretString,
    /// The instances' certificate, for [`SERVER_NAME`].
    pub server_cert: String,
    /// Its key.
    pub server_key: SecretString,
    /// The controller's certificate.
    pub client_cert: String,
    /// Its key.
    pub client_key: SecretString,
}

impl Certificates {
    /// A new CA, and certificates signed by it that are valid for `validity` from `now` on.
    pub fn generate(now: Timestamp, validity: SignedDuration) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let params = authority(now)?;
        let ca_cert = params.self_signed(&key)?.pem();
        sign(ca_cert, key, now, validity)
    }

    /// New certificates from a CA that exists: instances that have not picked theirs up yet and
    /// a controller that has go on trusting each other.
    pub fn renew(
        ca_cert: &str,
        ca_key: &SecretString,
        now: Timestamp,
        validity: SignedDuration,
    ) -> Result<Self, Error> {
        let key = KeyPair::from_pem(ca_key.expose_secret())?;
        sign(ca_cert.to_owned(), key, now, validity)
    }
}

fn sign(
    ca_cert: String,
    ca_key: KeyPair,
    now: Timestamp,
    validity: SignedDuration,
) -> Result<Certificates, Error> {
    let ca_pem = SecretString::from(ca_key.serialize_pem());
    let issuer = Issuer::new(authority(now)?, ca_key);
    let leaf = |name: &str, usages: &[_]| -> Result<(String, SecretString), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name = named(name);
        params.not_before = moment(now, -CLOCK_SKEW);
        params.not_after = moment(now, validity);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), SecretString::from(key.serialize_pem())))
    };
    // An instance is a client as well: it asks its peers for their timeline, and may ask no more.
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (server_cert, server_key) = leaf(SERVER_NAME, &both)?;
    let (client_cert, client_key) = leaf(CONTROLLER_NAME, &both[1..])?;
    Ok(Certificates { ca_cert, ca_key: ca_pem, server_cert, server_key, client_cert, client_key })
}

/// The CA's own parameters; for signing only its name and key count, so the same ones do for a
/// CA that was made earlier.
fn authority(now: Timestamp) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("pgitops database CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = moment(now, -CLOCK_SKEW);
    params.not_after = moment(now, CA_VALIDITY);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn moment(now: Timestamp, after: SignedDuration) -> OffsetDateTime {
    let seconds = now.as_second().saturating_add(after.as_secs());
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// When the first certificate of a PEM text ceases to be valid.
pub fn expires(pem: &str) -> Result<Timestamp, Error> {
    let bad = || Error::Read("not an X.509 certificate in PEM".into());
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| bad())?;
    not_after(&der).ok_or_else(bad)
}

/// `Certificate { tbs { [0] version?, serial, algorithm, issuer, validity { from, to }, … } … }`
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate, _) = element(der)?;
    let (_, tbs, _) = element(certificate)?;
    let (tag, _, after_version) = element(tbs)?;
    let mut rest = if tag == 0xa0 { after_version } else { tbs };
    for _ in ["serial", "algorithm", "issuer"] {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    // UTCTime has two digits for the year, 50 and above meaning 19xx (RFC 5280, 4.1.2.5.1).
    let text = match tag {
        0x17 if text.get(..2)? >= "50" => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", text)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

/// First element of DER: tag, content, what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        // Four bytes of length are more than any certificate has.
        if bytes.len() > 4 {
            return None;
        }
        length = bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_expires_when_it_was_told_to() {
        for now in ["2026-12-31T23:59:59Z", "2049-12-31T00:00:00Z", "1999-02-28T12:00:00Z"] {
            let now: Timestamp = now.parse().unwrap();
            let validity = SignedDuration::from_hours(90 * 24);
            let made = Certificates::generate(now, validity).unwrap();
            assert_eq!(expires(&made.server_cert).unwrap(), now + validity);
            assert_eq!(expires(&made.client_cert).unwrap(), now + validity);
            assert_eq!(expires(&made.ca_cert).unwrap(), now + CA_VALIDITY);
        }
        assert!(expires("no certificate").is_err());
    }

    #[test]
    fn a_renewed_certificate_is_trusted_by_the_same_authority() {
        let now = Timestamp::now();
        let validity = SignedDuration::from_hours(1);
        let old = Certificates::generate(now, validity).unwrap();
        let new = Certificates::renew(&old.ca_cert, &old.ca_key, now, validity * 2).unwrap();
        assert_eq!(new.ca_cert, old.ca_cert);
        assert_ne!(new.server_cert, old.server_cert);
        assert_eq!(expires(&new.server_cert).unwrap(), now_in_seconds(now) + validity * 2);
    }

    fn now_in_seconds(now: Timestamp) -> Timestamp {
        Timestamp::from_second(now.as_second()).unwrap()
    }
}
