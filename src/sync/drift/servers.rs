//! What the servers' own reports say beside the files: who overrides a document's values, and what
//! waits for a restart.
//!
//! Says nothing where nobody could be asked. Leaves it to the gates what an override holds up.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Compare, Override};
use crate::instance::protocol::RoleSetting;
use crate::pgconf::{Context, Layer, Name, Value};
use crate::sync::live::Report;

impl Compare<'_> {
    /// Managed parameters that nodes take from a place that no file of ours can override.
    pub(super) fn overridden(&self) -> Vec<Override> {
        let Some(running) = &self.present.running else { return Vec::new() };
        let mut overrides = Vec::new();
        for (name, value) in self.document.settings.iter() {
            let overrides_it = |report: &Report| {
                report.is_from_alter_system()
                    && !self.catalogue.runs_with(name, value, &report.value)
            };
            let nodes = running.nodes.iter();
            let nodes = nodes.filter(|(_, reports)| reports.get(name).is_some_and(overrides_it));
            let nodes: Vec<String> = nodes.map(|(node, _)| node.clone()).collect();
            if !nodes.is_empty() {
                overrides.push(Override {
                    name: name.clone(),
                    nodes,
                    by: "postgresql.auto.conf".to_owned(),
                    cure: format!("ALTER SYSTEM RESET {name}; SELECT pg_reload_conf();"),
                });
            }
        }
        overrides
    }

    /// What a restart would bring into effect although these changes do not name it, with the nodes
    /// where it waits.
    pub(super) fn pending(&self, changes: &[Change]) -> BTreeMap<Name, Vec<String>> {
        let changed: BTreeSet<Name> =
            changes.iter().filter_map(|change| Name::new(&change.name).ok()).collect();
        let mut pending: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        let running = self.present.running.iter().flat_map(|running| &running.nodes);
        for (node, reports) in running {
            for (name, report) in reports.iter().filter(|(name, _)| !changed.contains(*name)) {
                if self.waits(name, report) {
                    pending.entry(name.clone()).or_default().push(node.clone());
                }
            }
        }
        pending
    }

    /// Whether another value than the running one waits on the node's disk. The server's flag alone
    /// does not say so: it sticks when a line is removed, and it misses what would not start.
    fn waits(&self, name: &Name, report: &Report) -> bool {
        if report.fixed {
            return false;
        }
        let Some(on_disk) = self.on_disk(name) else { return false };
        let postmaster =
            |name| self.catalogue.get(name).map(|p| p.context() == Context::Postmaster);
        let another = !report.is_from_alter_system()
            && postmaster(name) == Some(true)
            && !self.catalogue.runs_with(name, on_disk, &report.value);
        report.pending || another
    }

    /// The value in the servers' file, where a file sets one.
    fn on_disk(&self, name: &Name) -> Option<&Value> {
        let custom = &self.present.custom;
        match (&custom.rendered, custom.layers.source(name)) {
            (Some(rendered), _) => rendered.get(name),
            (None, Layer::Inline) => custom.layers.inline.get(name),
            (None, Layer::User) => custom.layers.user.get(name),
            (None, Layer::BuiltIn | Layer::Provisioner | Layer::Tuning | Layer::Owned) => None,
        }
    }

    /// Settings of roles and databases of what the document names: its sessions do not see it.
    pub(super) fn remarks(&self) -> Vec<String> {
        let Some(running) = &self.present.running else { return Vec::new() };
        let named = |setting: &&RoleSetting| {
            Name::new(&setting.name).is_ok_and(|name| self.document.settings.contains(&name))
        };
        let line = |setting: &RoleSetting| {
            format!("{}; its sessions do not see what the document says", setting.line())
        };
        let mut remarks: Vec<String> = running.roles.iter().filter(named).map(line).collect();
        if running.more_roles {
            let more = "more roles or databases have settings of their own; see pg_db_role_setting";
            remarks.push(more.to_owned());
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgconf::{Catalogue, Layers, Settings};
    use crate::sync::desired::{Desired, Document, Scope, Tree};
    use crate::sync::drift::Difference;
    use crate::sync::live::{Custom, Present, Running};
    use std::sync::Arc;

    fn document(parameters: &str) -> Arc<Document> {
        let text = format!(
            "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: pg}}\n\
             spec:\n  databaseRef: {{name: pg}}\n  parameters: {{{parameters}}}\n"
        );
        let files = [("pg.yaml".to_owned(), text.into_bytes().into())].into();
        let tree = Tree { files, complete: true, ..Tree::default() };
        let scope = Scope { namespace: "demo".to_owned(), folder: ".".to_owned() };
        let desired = Desired::parse(&tree, &scope);
        let database = desired.databases().into_iter().next().unwrap();
        desired.document(&database).unwrap().clone()
    }

    /// What comes of a document, the text of the servers' file, and reports
    /// `node name=value flags`: `*` is pending, `s` by ALTER SYSTEM, `c` on the command line.
    fn difference(parameters: &str, file: &str, reports: &[&str]) -> Difference {
        let mut running = Running::default();
        for report in reports {
            let words: Vec<&str> = report.split(' ').collect();
            let (name, value) = words[1].split_once('=').unwrap();
            let flags = words.get(2).copied().unwrap_or_default();
            let report = Report {
                value: value.to_owned(),
                file: flags.contains('s').then(|| "/data/postgresql.auto.conf".to_owned()),
                pending: flags.contains('*'),
                fixed: flags.contains('c'),
            };
            let node = running.nodes.entry(words[0].to_owned()).or_default();
            node.insert(Name::new(name).unwrap(), report);
        }
        of(parameters, file, running)
    }

    fn of(parameters: &str, file: &str, running: Running) -> Difference {
        let inline = Settings::parse(file).unwrap();
        let layers = Layers { inline: inline.clone(), ..Layers::default() };
        let custom = Custom { layers, rendered: Some(inline), ..Custom::default() };
        let present = Present {
            uid: "u".to_owned(),
            version: "15".to_owned(),
            nodes: 2,
            provisioned: true,
            claimant_exists: true,
            admitted: true,
            custom,
            running: Some(running),
            ..Present::default()
        };
        let catalogue = Catalogue::for_version("15").unwrap();
        Difference::of(&document(parameters), &present, catalogue)
    }

    #[test]
    fn what_waits_for_a_restart_is_found_by_its_value() {
        let check = |file: &str, reports: &[&str], expected: &str| {
            let pending = difference("max_connections: 110", file, reports).pending;
            let lines: Vec<String> =
                pending.iter().map(|(name, nodes)| format!("{name} {}", nodes.join(","))).collect();
            assert_eq!(lines.join("; "), expected, "{file} {reports:?}");
        };
        let buffers = "shared_buffers = 24MB\n";
        check(
            buffers,
            &["pg-0 shared_buffers=2048 *", "pg-1 shared_buffers=3072"],
            "shared_buffers pg-0",
        );
        // The flag misses; the value tells.
        check(
            buffers,
            &["pg-0 shared_buffers=2048", "pg-1 shared_buffers=2048"],
            "shared_buffers pg-0,pg-1",
        );
        // The flag sticks when a line is removed.
        check("", &["pg-0 shared_buffers=2048 *"], "");
        // No restart changes what the command line sets, or what a reload has not brought.
        check(buffers, &["pg-0 shared_buffers=2048 *c"], "");
        check("work_mem = 4MB\n", &["pg-0 work_mem=8192"], "");
        // ALTER SYSTEM: only another value than the one that it brought already.
        check(buffers, &["pg-0 shared_buffers=2048 s"], "");
        check(buffers, &["pg-0 shared_buffers=2048 *s"], "shared_buffers pg-0");
        // The document's own change is no surprise; one that waits already is.
        check("max_connections = 90\n", &["pg-0 max_connections=80 *"], "");
        check("max_connections = 110\n", &["pg-0 max_connections=80 *"], "max_connections pg-0");
    }

    #[test]
    fn an_override_names_all_its_nodes() {
        let reports = ["pg-0 work_mem=8192 s", "pg-1 work_mem=8192 s", "pg-2 work_mem=4096 s"];
        let found = difference("work_mem: 4MB", "work_mem = 4MB\n", &reports).overridden;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].nodes, ["pg-0", "pg-1"]);
        let held = crate::sync::plan::Held::Overridden(found[0].clone()).text();
        assert_eq!(held, "work_mem is overridden by postgresql.auto.conf on pg-0, pg-1");
    }

    #[test]
    fn settings_of_roles_are_remarks_on_what_the_document_names() {
        let setting = |name: &str| RoleSetting {
            name: name.to_owned(),
            role: Some("app".to_owned()),
            database: None,
            value: Some("42MB".to_owned()),
        };
        let roles = [setting("work_mem"), setting("temp_buffers")].into();
        let running = Running { roles, more_roles: true, ..Running::default() };
        let found = of("Work_mem: 4MB", "work_mem = 4MB\n", running);
        assert!(found.changes.is_empty() && found.overridden.is_empty());
        let expected = "work_mem is 42MB for role app (ALTER ROLE); \
            its sessions do not see what the document says";
        assert_eq!(found.remarks.len(), 2);
        assert_eq!(found.remarks[0], expected);
        assert!(found.remarks[1].contains("pg_db_role_setting"), "{}", found.remarks[1]);
    }
}
