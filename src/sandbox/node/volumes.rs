//! A pod's volumes as folders of this machine.
//!
//! What a volume holds is computed from values ([`content`], pure) and then published the way the
//! kubelet does it: files in a dated folder, `..data` pointing to it, one link per name, and an
//! update is one rename of `..data`. Leaves reading Secrets and ConfigMaps to `observe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EnvVarSource, KeyToPath, Pod, Volume, VolumeProjection,
};

use super::environment::{Sources, field};

/// Mode of files when the volume names none, as in Kubernetes.
const DEFAULT_MODE: i32 = 0o644;

/// Names of the objects that a pod needs, beside whether it can do without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// PersistentVolumeClaims.
    pub claims: BTreeSet<String>,
    /// ServiceAccount tokens are wanted.
    pub tokens: bool,
}

/// Finds everything that the pod's volumes and variables refer to.
pub fn references(pod: &Pod) -> References {
    let mut found = References::default();
    let Some(spec) = &pod.spec else { return found };
    for volume in spec.volumes.iter().flatten() {
        found.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        found.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        let claim = volume.persistent_volume_claim.as_ref();
        found.claims.extend(claim.map(|c| c.claim_name.clone()));
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in sources {
            found.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            found.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
            found.tokens |= source.service_account_token.is_some();
        }
    }
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        variables(container, &mut found);
    }
    found
}

fn variables(container: &Container, found: &mut References) {
    for from in container.env_from.iter().flatten() {
        found.secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
        found.config_maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
    }
    let sources = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    for EnvVarSource { secret_key_ref, config_map_key_ref, .. } in sources {
        found.secrets.extend(secret_key_ref.iter().map(|r| r.name.clone()));
        found.config_maps.extend(config_map_key_ref.iter().map(|r| r.name.clone()));
    }
}

/// Relative path → (bytes, mode) of a volume that is made of objects.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content(BTreeMap<String, (Vec<u8>, u32)>);

/// What a volume is.
pub enum Kind {
    /// A folder that lives as long as the pod.
    Empty,
    /// The folder of a claim.
    Claim(String),
    /// A folder of this machine.
    Host(PathBuf),
    /// Files made of objects, kept up to date.
    Files(Content),
}

/// Says what a volume of the pod is.
///
/// # Errors
/// Something required is absent, or the kind of volume is not supported.
pub fn kind(pod: &Pod, volume: &Volume, sources: &Sources) -> Result<Kind> {
    if volume.empty_dir.is_some() {
        return Ok(Kind::Empty);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Ok(Kind::Claim(claim.claim_name.clone()));
    }
    if let Some(host) = &volume.host_path {
        return Ok(Kind::Host(PathBuf::from(&host.path)));
    }
    let mut content = Content::default();
    if let Some(secret) = &volume.secret {
        let from = From {
            known: &sources.secrets,
            kind: "secret",
            name: secret.secret_name.as_deref().unwrap_or(""),
            optional: secret.optional,
            mode: secret.default_mode,
        };
        content.keys(&from, secret.items.as_deref())?;
    } else if let Some(map) = &volume.config_map {
        let from = From {
            known: &sources.config_maps,
            kind: "configmap",
            name: &map.name,
            optional: map.optional,
            mode: map.default_mode,
        };
        content.keys(&from, map.items.as_deref())?;
    } else if let Some(api) = &volume.downward_api {
        content.fields(pod, api.items.as_deref(), api.default_mode)?;
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            content.projection(pod, source, sources, projected.default_mode)?;
        }
    } else {
        bail!(
            "volume {:?}: the sandbox has emptyDir, secret, configMap, projected, downwardAPI, \
             hostPath and persistentVolumeClaim only",
            volume.name
        );
    }
    Ok(Kind::Files(content))
}

struct From<'a> {
    known: &'a BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    kind: &'a str,
    name: &'a str,
    optional: Option<bool>,
    mode: Option<i32>,
}

impl Content {
    fn keys(&mut self, from: &From<'_>, items: Option<&[KeyToPath]>) -> Result<()> {
        let (kind, name) = (from.kind, from.name);
        let optional = from.optional == Some(true);
        let Some(keys) = from.known.get(name) else {
            ensure!(optional, "{kind} \"{name}\" not found");
            return Ok(());
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in keys {
                self.file(key, bytes.clone(), None, from.mode)?;
            }
            return Ok(());
        };
        for item in items {
            match keys.get(&item.key) {
                Some(bytes) => self.file(&item.path, bytes.clone(), item.mode, from.mode)?,
                None => {
                    ensure!(optional, "{kind} \"{name}\" references non-existent key: {}", item.key)
                }
            }
        }
        Ok(())
    }

    fn fields(
        &mut self,
        pod: &Pod,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: Option<i32>,
    ) -> Result<()> {
        for item in items.into_iter().flatten() {
            let Some(selector) = &item.field_ref else {
                bail!("file {:?}: the sandbox has fieldRef only in downwardAPI volumes", item.path)
            };
            self.file(&item.path, field(pod, selector)?.into_bytes(), item.mode, mode)?;
        }
        Ok(())
    }

    fn projection(
        &mut self,
        pod: &Pod,
        source: &VolumeProjection,
        sources: &Sources,
        mode: Option<i32>,
    ) -> Result<()> {
        if let Some(s) = &source.secret {
            let known = &sources.secrets;
            let from = From { known, kind: "secret", name: &s.name, optional: s.optional, mode };
            self.keys(&from, s.items.as_deref())?;
        }
        if let Some(c) = &source.config_map {
            let known = &sources.config_maps;
            let from = From { known, kind: "configmap", name: &c.name, optional: c.optional, mode };
            self.keys(&from, c.items.as_deref())?;
        }
        if let Some(api) = &source.downward_api {
            self.fields(pod, api.items.as_deref(), mode)?;
        }
        if let Some(token) = &source.service_account_token
            && let Some(bytes) = &sources.token
        {
            self.file(&token.path, bytes.clone(), None, Some(0o600))?;
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            bail!("projected volume: the sandbox has neither trust bundles nor pod certificates");
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &str,
        bytes: Vec<u8>,
        mode: Option<i32>,
        default: Option<i32>,
    ) -> Result<()> {
        let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        ensure!(plain && !path.starts_with(".."), "file {path:?} would lie outside its volume");
        let mode = mode.or(default).unwrap_or(DEFAULT_MODE);
        self.0.insert(path.to_owned(), (bytes, mode as u32 & 0o777));
        Ok(())
    }

    /// Names at the top of the volume.
    fn tops(&self) -> BTreeSet<&str> {
        self.0.keys().filter_map(|path| path.split('/').next()).collect()
    }
}

/// Writes the content into `folder`; `number` must be a new one every time. Returns whether
/// anything changed. `own` gives a file to the pod's user; folders stay ours, since a folder that
/// the pod may write could send us elsewhere with a link.
///
/// # Errors
/// The file system's refusal; what was there before stays in force.
pub fn publish(
    folder: &Path,
    content: &Content,
    number: u64,
    own: &dyn Fn(&Path) -> Result<()>,
) -> Result<bool> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {folder:?}"))?;
    let data = folder.join("..data");
    let before = std::fs::read_link(&data).ok();
    if before.as_ref().is_some_and(|before| holds(&folder.join(before), content)) {
        return Ok(false);
    }
    let fresh = format!("..{number:020}");
    write_files(&folder.join(&fresh), content, own)?;
    let staged = folder.join("..data_tmp");
    let _ = std::fs::remove_file(&staged);
    symlink(&fresh, &staged).with_context(|| format!("linking {staged:?}"))?;
    std::fs::rename(&staged, &data).with_context(|| format!("replacing {data:?}"))?;
    relink(folder, &content.tops())?;
    if let Some(before) = before.as_deref().and_then(Path::to_str).filter(|b| is_dated(b)) {
        let _ = std::fs::remove_dir_all(folder.join(before));
    }
    Ok(true)
}

fn is_dated(name: &str) -> bool {
    name.strip_prefix("..").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
}

fn holds(folder: &Path, content: &Content) -> bool {
    let same = |(path, (bytes, _)): (&String, &(Vec<u8>, u32))| {
        std::fs::read(folder.join(path)).is_ok_and(|found| found == *bytes)
    };
    count(folder) == content.0.len() && content.0.iter().all(same)
}

fn count(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
}

fn write_files(folder: &Path, content: &Content, own: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir(folder).with_context(|| format!("creating {folder:?}"))?;
    for (path, (bytes, mode)) in &content.0 {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("creating {parent:?}"))?;
        std::fs::write(&file, bytes).with_context(|| format!("writing {file:?}"))?;
        std::fs::set_permissions(&file, Permissions::from_mode(*mode))?;
        own(&file)?;
    }
    Ok(())
}

/// One link per name at the top; links of names that are gone go too.
fn relink(folder: &Path, tops: &BTreeSet<&str>) -> Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let known = name.to_str().is_some_and(|n| n.starts_with("..") || tops.contains(n));
        if !known {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    for top in tops {
        let link = folder.join(top);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(top), &link)
                .with_context(|| format!("linking {link:?}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let keys = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        sources.secrets.insert("s".into(), keys.clone().into());
        sources.config_maps.insert("m".into(), keys.into());
        sources
    }

    fn check(volume: serde_json::Value, expected: Result<&str, &str>) {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"x": "y"}},
            "spec": {"containers": []},
        }))
        .unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let got = match kind(&pod, &volume, &sources()) {
            Ok(Kind::Empty) => Ok("empty".to_owned()),
            Ok(Kind::Claim(name)) => Ok(format!("claim {name}")),
            Ok(Kind::Host(path)) => Ok(format!("host {}", path.display())),
            Ok(Kind::Files(Content(files))) => Ok(files
                .iter()
                .map(|(path, (bytes, mode))| {
                    format!("{path}={} {mode:o}", String::from_utf8_lossy(bytes))
                })
                .collect::<Vec<_>>()
                .join(", ")),
            Err(e) => Err(e.to_string()),
        };
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("got {got:?}, wanted {expected:?}"),
        }
    }

    #[test]
    fn every_kind_of_volume() {
        check(json!({"emptyDir": {"medium": "Memory"}}), Ok("empty"));
        check(json!({"persistentVolumeClaim": {"claimName": "c"}}), Ok("claim c"));
        check(json!({"hostPath": {"path": "/x"}}), Ok("host /x"));
        check(json!({"secret": {"secretName": "s"}}), Ok("a=1 644, b=2 644"));
        check(
            json!({"secret": {"secretName": "s", "defaultMode": 256,
                   "items": [{"key": "b", "path": "d/c"}]}}),
            Ok("d/c=2 400"),
        );
        check(json!({"secret": {"secretName": "z"}}), Err("secret \"z\" not found"));
        check(json!({"secret": {"secretName": "z", "optional": true}}), Ok(""));
        let lost = json!([{"key": "z", "path": "z"}]);
        check(json!({"configMap": {"name": "m", "items": lost}}), Err("non-existent key: z"));
        let out = json!([{"key": "a", "path": "../a"}]);
        check(json!({"configMap": {"name": "m", "items": out}}), Err("outside its volume"));
        check(
            json!({"projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "a", "path": "user.conf"}]}},
                {"configMap": {"name": "m", "items": [{"key": "b", "path": "inline.conf"}]}},
                {"downwardAPI": {"items": [
                    {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            ]}}),
            Ok("inline.conf=2 644, name=p 644, user.conf=1 644"),
        );
        check(json!({"nfs": {"server": "s", "path": "/"}}), Err("the sandbox has emptyDir"));
    }

    #[test]
    fn references_are_found_everywhere() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "volumes": [{"name": "a", "secret": {"secretName": "s1"}},
                        {"name": "b", "persistentVolumeClaim": {"claimName": "c1"}},
                        {"name": "c", "projected": {"sources": [{"configMap": {"name": "m1"}}]}}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s2"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}},
                {"name": "Y", "valueFrom": {"configMapKeyRef": {"name": "m2", "key": "k"}}}]}],
        }}))
        .unwrap();
        let found = references(&pod);
        assert_eq!(Vec::from_iter(found.secrets), ["s1", "s2", "s3"]);
        assert_eq!(Vec::from_iter(found.config_maps), ["m1", "m2"]);
        assert_eq!(Vec::from_iter(found.claims), ["c1"]);
    }

    #[test]
    fn an_update_is_one_rename() {
        let folder = tempfile::tempdir().unwrap();
        let own = |_: &Path| Ok(());
        let content = |pairs: &[(&str, &str)]| {
            let files = pairs.iter().map(|(p, b)| ((*p).into(), (b.as_bytes().to_vec(), 0o600)));
            Content(files.collect())
        };
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        let first = content(&[("a", "1"), ("d/b", "2")]);
        assert!(publish(folder.path(), &first, 1, &own).unwrap());
        assert!(!publish(folder.path(), &first, 2, &own).unwrap());
        assert_eq!(read("a").as_deref(), Some("1"));
        assert_eq!(read("d/b").as_deref(), Some("2"));
        let second = content(&[("a", "10"), ("c", "3")]);
        assert!(publish(folder.path(), &second, 3, &own).unwrap());
        assert_eq!(read("a").as_deref(), Some("10"));
        assert_eq!(read("c").as_deref(), Some("3"));
        assert_eq!(read("d/b"), None);
        let mut names: Vec<String> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..00000000000000000003", "..data", "a", "c"]);
    }
}
