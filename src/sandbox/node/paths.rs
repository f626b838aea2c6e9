//! Container paths → paths of this machine.
//!
//! A local process sees the machine's own file system, so a pod's mount paths must be replaced
//! wherever they stand in `command`, `args` and `env`. Only whole path components are replaced,
//! the longest mount first, and nothing but mounts; `0.0.0.0` becomes the pod's address so that
//! no pod listens outside its own. Leaves the choice of local folders to `volumes`. Never looks
//! at a file system.

use std::net::Ipv4Addr;

/// Mount paths of one container with the local folders that stand for them, longest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathMap {
    mounts: Vec<(String, String)>,
    address: Option<Ipv4Addr>,
}

impl PathMap {
    /// Builds the map from (container path, local path) pairs. A relative path and `/` are left
    /// out: neither can be told apart from other text.
    pub fn new(mounts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut mounts: Vec<(String, String)> = mounts
            .into_iter()
            .map(|(at, local)| (at.trim_end_matches('/').to_owned(), local))
            .filter(|(at, _)| at.starts_with('/'))
            .collect();
        mounts.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        Self { mounts, address: None }
    }

    /// The same map, which also turns the listen address `0.0.0.0` into `address`.
    #[must_use]
    pub fn listening_on(mut self, address: Ipv4Addr) -> Self {
        self.address = Some(address);
        self
    }

    /// Replaces every mount path (and listen address) in `text`.
    pub fn rewrite(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some((length, local)) = self.match_here(text, at) {
                out.push_str(&local);
                at += length;
            } else {
                let Some(next) = rest.chars().next() else { break };
                out.push(next);
                at += next.len_utf8();
            }
        }
        out
    }

    fn match_here(&self, text: &str, at: usize) -> Option<(usize, String)> {
        let (before, rest) = text.split_at_checked(at)?;
        if rest.starts_with('/') && path_may_begin_after(before) {
            for (mount, local) in &self.mounts {
                if let Some(after) = rest.strip_prefix(mount.as_str())
                    && (after.starts_with('/') || ends_word(after))
                {
                    return Some((mount.len(), local.clone()));
                }
            }
        }
        // `0.0.0.0/0` is a network in pg_hba.conf, not an address to listen on.
        if let Some(after) = rest.strip_prefix("0.0.0.0")
            && let Some(address) = self.address
            && (before.is_empty() || before.ends_with(separates))
            && (after.is_empty() || after.starts_with(separates))
        {
            return Some(("0.0.0.0".len(), address.to_string()));
        }
        None
    }
}

/// Whether an absolute path can begin after `before`: not in the middle of a word, but after
/// `-D` (an option and its value in one word) and after `://` (a URL without a host).
fn path_may_begin_after(before: &str) -> bool {
    if before.is_empty() || before.ends_with(separates) || before.ends_with("://") {
        return true;
    }
    let mut back = before.chars().rev();
    let (letter, dash, start) = (back.next(), back.next(), back.next());
    letter.is_some_and(|c| c.is_ascii_alphabetic())
        && dash == Some('-')
        && start.is_none_or(|c| c.is_whitespace() || c == '\'' || c == '"')
}

fn ends_word(after: &str) -> bool {
    after.is_empty() || after.starts_with(separates) || after.starts_with([')', ']', '}'])
}

fn separates(c: char) -> bool {
    c.is_whitespace() || "'\"`=:,;(<>|&[{@!\\".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let map = PathMap::new([
            ("/var/pv".to_owned(), "/t/v/data".to_owned()),
            ("/var/pv/extra/".to_owned(), "/t/v/extra".to_owned()),
            ("/etc/config".to_owned(), "/t/p/config".to_owned()),
            ("/".to_owned(), "/never".to_owned()),
            ("relative".to_owned(), "/never".to_owned()),
        ])
        .listening_on(Ipv4Addr::new(127, 64, 1, 10));
        assert_eq!(map.rewrite(text), expected, "{text}");
    }

    #[test]
    fn whole_components_are_replaced_longest_first() {
        check("/var/pv", "/t/v/data");
        check("/var/pv/", "/t/v/data/");
        check("/var/pv/data", "/t/v/data/data");
        check("/var/pv/extra", "/t/v/extra");
        check("/var/pv/extra/x", "/t/v/extra/x");
        check("/var/pv/extras", "/t/v/data/extras");
        check("/var/pvc", "/var/pvc");
        check("/var/pv.bak", "/var/pv.bak");
        check("/var", "/var");
    }

    #[test]
    fn paths_inside_text_are_found() {
        check("--data=/var/pv/data", "--data=/t/v/data/data");
        check("-D/var/pv/data", "-D/t/v/data/data");
        check("sh -c 'cat /etc/config/a>/var/pv/b'", "sh -c 'cat /t/p/config/a>/t/v/data/b'");
        check("/var/pv:/etc/config", "/t/v/data:/t/p/config");
        check("file:///var/pv/x", "file:///t/v/data/x");
        check("$(cat /var/pv/x)", "$(cat /t/v/data/x)");
        check("[ -d /var/pv ]", "[ -d /t/v/data ]");
        check("größe /var/pv", "größe /t/v/data");
    }

    #[test]
    fn what_only_looks_like_a_mount_is_left_alone() {
        check("home/var/pv", "home/var/pv");
        check("http://host/var/pv", "http://host/var/pv");
        check("$BASE/var/pv", "$BASE/var/pv");
        check("${BASE}/var/pv", "${BASE}/var/pv");
        check("../var/pv", "../var/pv");
        check("//var/pv", "//var/pv");
        check("", "");
    }

    #[test]
    fn a_pod_listens_on_its_own_address() {
        check("0.0.0.0", "127.64.1.10");
        check("--listen=0.0.0.0:8443", "--listen=127.64.1.10:8443");
        check("host all all 0.0.0.0/0 scram", "host all all 0.0.0.0/0 scram");
        check("10.0.0.0", "10.0.0.0");
        check("0.0.0.01", "0.0.0.01");
    }
}
