//! What a path means. Pure.

/// A place in the API.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// `/healthz` and its kin.
    Health,
    /// `/version`.
    Version,
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/<group>`.
    Group(String),
    /// `/api/v1` or `/apis/<group>/<version>`.
    Resources { group: String, version: String },
    /// `/openapi/v2`.
    OpenApi2,
    /// `/openapi/v3`.
    OpenApi3,
    /// `/openapi/v3/…`.
    OpenApi3Group { group: String, version: String },
    /// Objects.
    Resource(Resource),
    /// Anything else.
    Unknown,
}

/// A place with objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The API group, empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
    /// The resource, as `pods`.
    pub plural: String,
    /// The object, if one is named.
    pub name: Option<String>,
    /// The subresource, as `status`.
    pub subresource: Option<String>,
}

impl Route {
    /// Reads a path.
    pub fn of(path: &str) -> Self {
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["healthz" | "livez" | "readyz", ..] => Self::Health,
            ["version"] => Self::Version,
            ["api"] => Self::Core,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).into()),
            ["openapi", "v2"] => Self::OpenApi2,
            ["openapi", "v3"] => Self::OpenApi3,
            ["openapi", "v3", "api", version] => {
                Self::OpenApi3Group { group: String::new(), version: (*version).into() }
            }
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApi3Group { group: (*group).into(), version: (*version).into() }
            }
            ["api", version] => {
                Self::Resources { group: String::new(), version: (*version).into() }
            }
            ["apis", group, version] => {
                Self::Resources { group: (*group).into(), version: (*version).into() }
            }
            ["api", version, rest @ ..] => resource("", version, rest),
            ["apis", group, version, rest @ ..] => resource(group, version, rest),
            _ => Self::Unknown,
        }
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    // `/namespaces/x` is an object, `/namespaces/x/pods` a list in it; the subresources of a
    // namespace itself are the exception.
    let (namespace, rest) = match rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(*name), None),
        [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
        _ => return Route::Unknown,
    };
    Route::Resource(Resource {
        group: group.into(),
        version: version.into(),
        namespace: namespace.map(str::to_owned),
        plural: (*plural).into(),
        name: name.map(str::to_owned),
        subresource: subresource.map(str::to_owned),
    })
}

/// Percent-decoding of one part of a path; what is malformed stays as it is.
fn decode(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = part.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        path: &str,
        namespace: Option<&str>,
        plural: &str,
        name: Option<&str>,
        sub: Option<&str>,
    ) {
        let Route::Resource(found) = Route::of(path) else { panic!("{path} is no resource") };
        let parts = (
            found.namespace.as_deref(),
            &*found.plural,
            found.name.as_deref(),
            found.subresource.as_deref(),
        );
        assert_eq!(parts, (namespace, plural, name, sub), "{path}");
    }

    #[test]
    fn paths_are_read() {
        check("/api/v1/namespaces/demo/pods/a/log", Some("demo"), "pods", Some("a"), Some("log"));
        check("/api/v1/namespaces/demo", None, "namespaces", Some("demo"), None);
        check("/api/v1/namespaces/demo/status", None, "namespaces", Some("demo"), Some("status"));
        check("/api/v1/pods", None, "pods", None, None);
        check("/apis/kubedb.com/v1/postgreses", None, "postgreses", None, None);
        check("/apis/x/v1/roles/a%3Ab", None, "roles", Some("a:b"), None);
        assert_eq!(Route::of("/nonsense"), Route::Unknown);
    }
}
