//! The operator's config Secret: what seeds an empty volume, and what was configured last.
//!
//! Its name never changes. The provisioner creates it; afterwards only `ops` writes it. It says
//! which `spec.configuration` it was rendered from, so that a direct edit of the spec is seen.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use crate::api::names::{INLINE_CONF, RENDERED_CONF};
use crate::pgconf::Settings;

use super::super::blueprint::Configuration;
use super::Owner;

/// Secret `<db>-<uid6>`.
pub fn operator_config(owner: &Owner, configuration: &Configuration) -> Secret {
    let text = |text: String| ByteString(text.into_bytes());
    Secret {
        metadata: owner.marked(owner.child(&owner.names.operator_config)),
        type_: Some("Opaque".to_owned()),
        data: Some(
            [
                (INLINE_CONF.to_owned(), text(configuration.inline.clone())),
                (RENDERED_CONF.to_owned(), text(configuration.rendered.render())),
            ]
            .into(),
        ),
        ..Secret::default()
    }
}

/// Names of parameters whose value in the spec is not the one that was rendered last, sorted.
///
/// Compares what people wrote: `user` and `inline` as the spec has them now. A parameter that was
/// only dropped from the owner's Secret shows when it is neither there nor among our defaults.
pub fn pending(
    secret: &Secret,
    defaults: &Settings,
    user: &Settings,
    inline: &Settings,
) -> Vec<String> {
    let read = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|keys| keys.get(key));
        bytes.and_then(|bytes| Settings::parse_bytes(&bytes.0).ok())
    };
    let Some(rendered) = read(RENDERED_CONF) else { return Vec::new() };
    let inline_before = read(INLINE_CONF).unwrap_or_default();
    let wanted = user.merged(inline);
    let changed = wanted.iter().filter(|(name, value)| rendered.get(name) != Some(*value));
    let dropped =
        rendered.names().filter(|name| !wanted.contains(name) && !defaults.contains(name));
    // A default that inline overrode and no longer does. Other differences from our defaults are
    // no edit: a newer pgitops may have others.
    let fallen = rendered.iter().filter(|(name, value)| {
        let ours = defaults.get(name).is_some_and(|ours| ours != *value);
        ours && !wanted.contains(name) && inline_before.contains(name)
    });
    let mut names: Vec<String> = changed
        .map(|(name, _)| name.to_string())
        .chain(dropped.map(ToString::to_string))
        .chain(fallen.map(|(name, _)| name.to_string()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::super::super::sample::{MINIMAL, postgres};
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    fn check(rendered: &str, user: &str, inline: &str, expected: &[&str]) {
        let configuration =
            Configuration { rendered: settings(rendered), inline: rendered.to_owned() };
        let secret = operator_config(&Owner::of(&postgres(MINIMAL)), &configuration);
        let defaults = settings("wal_log_hints = on");
        let pending = pending(&secret, &defaults, &settings(user), &settings(inline));
        assert_eq!(pending, expected, "{rendered} | {user} | {inline}");
    }

    #[test]
    fn an_edit_of_the_spec_is_pending_until_it_is_rendered() {
        check("wal_log_hints = on\nwork_mem = 1MB", "work_mem = 1MB", "", &[]);
        check(
            "wal_log_hints = on\nwork_mem = 1MB",
            "work_mem = 1MB",
            "work_mem = 2MB",
            &["work_mem"],
        );
        check("wal_log_hints = on\nwork_mem = 1MB", "", "", &["work_mem"]);
        check("wal_log_hints = off", "wal_log_hints = off", "", &[]);
        check("wal_log_hints = off", "", "", &["wal_log_hints"]);
        check("wal_log_hints = on", "", "fsync = on", &["fsync"]);
    }

    #[test]
    fn the_secret_holds_what_seeds_a_volume() {
        let configuration = Configuration {
            rendered: settings("work_mem = 1MB"),
            inline: "work_mem=1MB".to_owned(),
        };
        let secret = operator_config(&Owner::of(&postgres(MINIMAL)), &configuration);
        assert_eq!(secret.metadata.name.as_deref(), Some("orders-d430c8"));
        let keys = secret.data.unwrap();
        assert_eq!(keys[INLINE_CONF].0, b"work_mem=1MB");
        assert_eq!(keys[RENDERED_CONF].0, b"work_mem = '1MB'\n");
    }
}
