//! Which addresses a repository may have.
//!
//! An allow-list: absolute paths and `file://` are served by `local.rs`; http, https and ssh are
//! recognised and answered with [`Error::UnsupportedTransport`] (this is the place where their
//! transports will be chosen); everything else is refused, `ext::` above all, which runs commands.
//! Never opens anything and never repeats an address that may carry a password.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Error;

/// Longest address we accept; git hosts stay far below, and it ends up in messages.
const MAX_URL: usize = 2048;

/// The checked address of a repository. Carries no credentials, so it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceUrl {
    text: String,
    kind: UrlKind,
}

/// How a repository is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum UrlKind {
    /// A folder of this machine.
    Local(PathBuf),
    /// `http://` or `https://`.
    Http { scheme: &'static str },
    /// `ssh://` or `user@host:path`.
    Ssh,
}

impl SourceUrl {
    /// Checks an address as a person writes it into `spec.url`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check_characters(text)?;
        let kind = match text.split_once("://") {
            Some(("file", rest)) => UrlKind::Local(file_path(rest)?),
            Some(("http", rest)) => http("http", rest)?,
            Some(("https", rest)) => http("https", rest)?,
            Some(("ssh", rest)) => ssh(rest)?,
            Some((_, _)) => return refuse("its scheme is not one of file, https, http, ssh"),
            None if text.starts_with('/') => UrlKind::Local(PathBuf::from(text)),
            None if text.contains("::") => {
                return refuse("remote helpers (name::…) are not allowed");
            }
            None => scp_style(text)?,
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// The folder, when the repository is local.
    pub fn local_path(&self) -> Option<&Path> {
        match &self.kind {
            UrlKind::Local(path) => Some(path),
            UrlKind::Http { .. } | UrlKind::Ssh => None,
        }
    }

    /// The folder of a repository that this version and this process may use.
    pub(crate) fn usable(&self, allow_local: bool) -> Result<&Path, Error> {
        match &self.kind {
            UrlKind::Local(path) if allow_local => Ok(path),
            UrlKind::Local(_) => Err(Error::LocalForbidden),
            UrlKind::Http { scheme } => Err(Error::UnsupportedTransport { scheme }),
            UrlKind::Ssh => Err(Error::UnsupportedTransport { scheme: "ssh" }),
        }
    }

    /// The address as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn refuse<T>(reason: &str) -> Result<T, Error> {
    Err(Error::Address { reason: reason.to_owned() })
}

fn check_characters(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return refuse("it is empty; write an absolute path or a file:// URL");
    }
    if text.len() > MAX_URL {
        return refuse("it is longer than 2048 bytes");
    }
    if text.starts_with('-') {
        return refuse("it begins with a dash, which a program could take for an option");
    }
    if text.chars().any(char::is_control) {
        return refuse("it contains a control character");
    }
    if text.trim() != text {
        return refuse("it begins or ends with white space");
    }
    Ok(())
}

/// `/path`, or `localhost/path`, after `file://`, with %xx decoded as git does.
fn file_path(rest: &str) -> Result<PathBuf, Error> {
    let path = rest.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        return refuse("a file URL names this machine only: write file:///absolute/path");
    }
    let path = percent_decode(path)?;
    if path.chars().any(char::is_control) {
        return refuse("it contains an encoded control character");
    }
    Ok(PathBuf::from(path))
}

fn percent_decode(text: &str) -> Result<String, Error> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => return refuse("it contains a % that is not followed by two hex digits"),
        }
    }
    String::from_utf8(out).or_else(|_| refuse("its encoded characters are not UTF-8"))
}

fn http(scheme: &'static str, rest: &str) -> Result<UrlKind, Error> {
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return refuse("it carries a user or password; put those into a Secret (spec.secretRef)");
    }
    check_host(host)?;
    Ok(UrlKind::Http { scheme })
}

fn ssh(rest: &str) -> Result<UrlKind, Error> {
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.split_once('@').unwrap_or(("git", authority));
    if user.contains(':') {
        return refuse("it carries a password; put a key into a Secret (spec.secretRef)");
    }
    check_host(user)?;
    check_host(host)?;
    Ok(UrlKind::Ssh)
}

/// `user@host:path`; anything else without a scheme would be a relative path.
fn scp_style(text: &str) -> Result<UrlKind, Error> {
    let Some((authority, _path)) = text.split_once(':').filter(|(host, _)| !host.contains('/'))
    else {
        return refuse("it is a relative path; write an absolute one");
    };
    ssh(authority)
}

fn check_host(host: &str) -> Result<(), Error> {
    if host.is_empty() || host.starts_with('-') {
        return refuse("its host is empty or begins with a dash");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let got = match SourceUrl::parse(text) {
            Ok(url) => match url.usable(true) {
                Ok(path) => Ok(path.display().to_string()),
                Err(error) => Err(error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        match (&got, expected) {
            (Ok(path), Ok(wanted)) => assert_eq!(path, wanted, "{text:?}"),
            (Err(error), Err(part)) => assert!(error.contains(part), "{text:?}: {error}"),
            _ => panic!("{text:?}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn an_address_is_taken_or_refused_with_a_reason() {
        check("/srv/config.git", Ok("/srv/config.git"));
        check("file:///srv/config.git", Ok("/srv/config.git"));
        check("file://localhost/srv/a%20b", Ok("/srv/a b"));
        check("file:///srv/%", Err("two hex digits"));
        check("file:///srv/%0a", Err("control character"));
        check("file:///srv/%ff", Err("UTF-8"));
        check("file://host/srv", Err("this machine only"));
        check("file://srv", Err("this machine only"));
        check("", Err("empty"));
        check("config.git", Err("relative path"));
        check("./a:b", Err("relative path"));
        check("-oProxyCommand=x", Err("dash"));
        check("--upload-pack=x", Err("dash"));
        check("/srv/a\nb", Err("control"));
        check(" /srv/a", Err("white space"));
        check("ext::sh -c id", Err("remote helpers"));
        check("fd::17", Err("remote helpers"));
        check("git://host/a", Err("scheme"));
        check("FILE:///srv/a", Err("scheme"));
        check("https://example.com/a.git", Err("uses https, which comes in a later version"));
        check("http://example.com/a.git", Err("uses http,"));
        check("https://user:pa55@example.com/a", Err("spec.secretRef"));
        check("https:///a", Err("host"));
        check("ssh://git@example.com/a.git", Err("uses ssh"));
        check("git@example.com:a.git", Err("uses ssh"));
        check("ssh://-oProxyCommand=x/a", Err("host"));
        check("git@-oProxyCommand=x:a", Err("host"));
        check("ssh://a:pw@host/x", Err("password"));
        check(&format!("/{}", "a".repeat(3000)), Err("2048"));
    }

    #[test]
    fn a_refused_address_is_never_repeated() {
        let error = SourceUrl::parse("https://user:pa55@example.com/a").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("pa55"));
    }

    #[test]
    fn a_local_path_needs_the_controllers_leave() {
        let url = SourceUrl::parse("/srv/config.git").unwrap();
        assert!(matches!(url.usable(false), Err(Error::LocalForbidden)));
    }
}
