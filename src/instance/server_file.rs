//! The file and the command line that a server gets; pure.
//!
//! Owned settings stand on the command line, where no file and no ALTER SYSTEM beats them. Only
//! `primary_conninfo` must change by reload; it stands, with the revision, in lines of ours after
//! the caller's last one, so that the caller's line numbers hold.

use super::{
    options::Options,
    protocol::{ConfigurationSet, MAX_FILE, Role, SetId},
};

/// The parameter that proves which version of the file a session has read.
pub const REVISION: &str = "pgitops.revision";

/// The arguments of `postgres`, for a real start as for a dry run.
#[must_use]
pub fn arguments(options: &Options) -> Vec<String> {
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let owned = [
        ("config_file", path(options.live_file())),
        ("hba_file", path(options.hba_file())),
        ("ident_file", path(options.ident_file())),
        ("listen_addresses", options.listen_address.to_string()),
        ("port", options.postgres_port.to_string()),
        ("unix_socket_directories", path(options.socket_directory.clone())),
        ("cluster_name", options.pod.clone()),
        ("hot_standby", "on".to_owned()),
        // Its words go to us, or nobody could say why a start failed.
        ("logging_collector", "off".to_owned()),
    ];
    let mut arguments = vec!["-D".to_owned(), path(options.data_directory.clone())];
    for (name, value) in owned {
        arguments.push("-c".to_owned());
        arguments.push(format!("{name}={value}"));
    }
    arguments
}

/// The whole file: the caller's text, then our lines.
#[must_use]
pub fn compose(text: &str, id: &SetId, conninfo: Option<&str>) -> String {
    let mut file = text.to_owned();
    if !file.is_empty() && !file.ends_with('\n') {
        file.push('\n');
    }
    if let Some(conninfo) = conninfo {
        file.push_str(&format!("primary_conninfo = {}\n", quote(conninfo)));
    }
    file.push_str(&format!("{REVISION} = {}\n", quote(&id.revision())));
    file
}

/// A whole file but for its identity: what a start makes of it.
#[must_use]
pub fn without_revision(file: &str) -> String {
    let own = |line: &&str| !line.starts_with(REVISION);
    file.lines().filter(own).flat_map(|line| [line, "\n"]).collect()
}

/// `primary_conninfo` for a role; `None` for a primary.
#[must_use]
pub fn conninfo(options: &Options, role: Option<&Role>, superuser: &str) -> Option<String> {
    match role {
        Some(Role::Standby { primary_hosts, primary_port }) => {
            Some(connection(options, primary_hosts, *primary_port, superuser))
        }
        Some(Role::Primary) | None => None,
    }
}

/// A libpq connection string to the primary. The short timeout moves on to the next host soon
/// when a name still resolves to an address that has gone.
#[must_use]
pub fn connection(options: &Options, hosts: &[String], port: u16, superuser: &str) -> String {
    let ports = vec![port.to_string(); hosts.len()].join(",");
    let pass_file = options.pass_file().to_string_lossy().into_owned();
    [
        ("host", hosts.join(",")),
        ("port", ports),
        ("user", superuser.to_owned()),
        ("passfile", pass_file),
        ("application_name", options.pod.clone()),
        ("connect_timeout", "3".to_owned()),
    ]
    .iter()
    .map(|(name, value)| format!("{name}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")))
    .collect::<Vec<_>>()
    .join(" ")
}

/// What may be said of hosts, or why not.
pub fn check_hosts(hosts: &[String]) -> Result<(), String> {
    // A pod has a name and an address; more than a few is a mistake.
    if hosts.is_empty() || hosts.len() > 8 {
        return Err("name 1 to 8 primary hosts".to_owned());
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    match hosts.iter().find(|host| host.is_empty() || !host.chars().all(legal)) {
        Some(host) => Err(format!("not a host name or address: {host:?}")),
        None => Ok(()),
    }
}

/// What may be said of a set, or why not.
pub fn check_set(set: &ConfigurationSet) -> Result<(), String> {
    let digest = &set.id.digest;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    if digest.is_empty() || digest.len() > 128 || !digest.chars().all(legal) {
        return Err("a digest has 1 to 128 of the characters 0-9 A-Z a-z : _ -".to_owned());
    }
    if set.text.len() > MAX_FILE {
        return Err(format!("the file is larger than {MAX_FILE} bytes"));
    }
    if set.text.contains('\0') {
        return Err("the file contains a NUL byte; the server would cut the value there".into());
    }
    Ok(())
}

/// A value between quotes, as the server's own writer does it.
#[must_use]
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `pg_hba.conf`: the socket folder belongs to the pod; everybody else needs the password.
pub const HBA: &str = "\
# Written by pgitops at every start.
local all         all     trust
local replication all     trust
host  all         all all scram-sha-256
host  replication all all scram-sha-256
";

/// One line of libpq's password file.
#[must_use]
pub fn pass_line(user: &str, password: &str) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    format!("*:*:*:{}:{}\n", escape(user), escape(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_come_after_the_last_of_the_caller() {
        let id = SetId { sequence: 7, digest: "abc".into() };
        let check = |text: &str, conninfo, expect: &str| {
            assert_eq!(compose(text, &id, conninfo), expect);
        };
        check("", None, "pgitops.revision = '7:abc'\n");
        check("a = 1", None, "a = 1\npgitops.revision = '7:abc'\n");
        check("a = 1\n", None, "a = 1\npgitops.revision = '7:abc'\n");
        let both = "primary_conninfo = 'host=''h'''\npgitops.revision = '7:abc'\n";
        check("", Some("host='h'"), both);
    }

    #[test]
    fn hosts_and_sets_that_could_smuggle_something_are_refused() {
        let hosts = |host: &str| check_hosts(&[host.to_owned()]).is_ok();
        assert!(hosts("db-0.db-pods.demo.svc") && hosts("127.0.0.1") && hosts("fd00::1"));
        assert!(!hosts("a b") && !hosts("a'") && !hosts("") && !hosts("a,b"));
        let set = |digest: &str, text: &str| {
            let id = SetId { sequence: 1, digest: digest.into() };
            check_set(&ConfigurationSet { id, text: text.into() }).is_ok()
        };
        assert!(set("sha256:00ff", "a = 1\n"));
        assert!(!set("", "") && !set("a'b", "") && !set("a", "x = 'a\0b'"));
        assert!(!set("a", &"#".repeat(MAX_FILE + 1)));
    }

    #[test]
    fn passwords_survive_the_password_file() {
        assert_eq!(pass_line("a:b", r"p\:"), "*:*:*:a\\:b:p\\\\\\:\n");
    }
}
