//! An image's name → what this machine has instead of it.
//!
//! A small table: the Postgres image with the tag of an installed major version, and our own
//! image. Everything else is an image that cannot be pulled, with words that say what there is.
//! Leaves running to `container`. Never fetches anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and Ubuntu put the servers: one folder per major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// What the machine's own programs are found by.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Path of our executable inside our own image.
const PGITOPS_PATH: &str = "/pgitops";

/// The environment that stands for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Variables that the image sets, `PATH` among them.
    pub env: BTreeMap<String, String>,
    /// Paths that exist in it, with those of this machine that stand for them.
    pub paths: Vec<(String, String)>,
}

/// What images there are.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// Repository of the Postgres image, without tag.
    pub postgres: String,
    /// Repository of our own image, without tag.
    pub pgitops: String,
    /// Installed servers: major version → folder of programs.
    pub majors: BTreeMap<u32, PathBuf>,
    /// Folder in which our executable stands under the name `pgitops`.
    pub own_folder: PathBuf,
}

impl Images {
    /// Resolves an image's name.
    ///
    /// # Errors
    /// The words for `ErrImagePull`: what is missing, what is there, what to do.
    pub fn resolve(&self, image: &str) -> Result<Image, String> {
        let (repository, tag) = split(image);
        let own = self.own_folder.display();
        if same_repository(repository, &self.pgitops) {
            let path = format!("{own}:{SYSTEM_PATH}");
            let program = format!("{own}/pgitops");
            let paths = vec![(PGITOPS_PATH.to_owned(), program)];
            return Ok(Image { env: variables([("PATH", path)]), paths });
        }
        if !same_repository(repository, &self.postgres) {
            return Err(format!(
                "image {image:?} is not known to the sandbox, which pulls nothing: it knows \
                 {}:MAJOR and {}:TAG",
                self.postgres, self.pgitops
            ));
        }
        let major = tag.and_then(leading_number);
        let bin = major.and_then(|m| self.majors.get(&m));
        let (Some(major), Some(bin)) = (major, bin) else {
            let wanted = major.map_or_else(|| image.to_owned(), |m| format!("PostgreSQL {m}"));
            return Err(format!("{wanted} is not installed on this machine: {}", self.installed()));
        };
        let mut env = variables([
            ("PATH", format!("{}:{SYSTEM_PATH}", bin.display())),
            ("PG_MAJOR", major.to_string()),
            ("LANG", "C.UTF-8".to_owned()),
        ]);
        if let Some(libraries) = own_libraries(bin) {
            env.insert("LD_LIBRARY_PATH".to_owned(), libraries.display().to_string());
        }
        let programs = format!("{DEBIAN_ROOT}/{major}/bin");
        Ok(Image { env, paths: vec![(programs, bin.display().to_string())] })
    }

    fn installed(&self) -> String {
        if self.majors.is_empty() {
            return format!(
                "there is no PostgreSQL in {DEBIAN_ROOT}; install one, for example with \
                 `apt-get install postgresql`"
            );
        }
        let list: Vec<String> = self.majors.keys().map(u32::to_string).collect();
        format!("there is {}; install it or ask for one of these", list.join(", "))
    }
}

fn variables<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// (repository, tag); a digest is no tag, a registry's port is no tag either.
fn split(image: &str) -> (&str, Option<&str>) {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        Some(_) | None => (image, None),
    }
}

/// The repository of an option such as `postgres:{version}`.
pub fn repository(option: &str) -> String {
    split(option).0.to_owned()
}

/// `docker.io/library/postgres` and `postgres` are the same; so are all tags of it.
fn same_repository(a: &str, b: &str) -> bool {
    fn short(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    short(a) == short(b)
}

fn leading_number(tag: &str) -> Option<u32> {
    let digits = tag.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Libraries that lie beside the programs of a relocated server, as in `<root>/lib/libpq.so.5`.
fn own_libraries(bin: &Path) -> Option<PathBuf> {
    let lib = bin.parent()?.join("lib");
    let holds_libpq = std::fs::read_dir(&lib)
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("libpq.so")));
    holds_libpq.then_some(lib)
}

/// Looks for installed servers: Debian's folder first, then each of `extra` (a folder with
/// `<major>/bin/postgres` like Debian's, or with `bin/postgres`, or with `postgres`). The first
/// one found of a major version wins.
pub fn installed_majors(extra: &[PathBuf]) -> BTreeMap<u32, PathBuf> {
    let mut majors = BTreeMap::new();
    for root in [PathBuf::from(DEBIAN_ROOT)].iter().chain(extra) {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let bin = entry.path().join("bin");
            if let Some(major) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && bin.join("postgres").is_file()
            {
                majors.entry(major).or_insert(bin);
            }
        }
        for bin in [root.join("bin"), root.clone()] {
            if bin.join("postgres").is_file()
                && let Some(major) = version_of(&bin)
            {
                majors.entry(major).or_insert(bin);
            }
        }
    }
    majors
}

fn version_of(bin: &Path) -> Option<u32> {
    let mut command = Command::new(bin.join("postgres"));
    if let Some(libraries) = own_libraries(bin) {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    leading_number(text.split_once("(PostgreSQL) ")?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, expected: Result<&str, &str>) {
        let images = Images {
            postgres: repository("docker.io/library/postgres:{version}"),
            pgitops: "registry.example:5000/pgitops".to_owned(),
            majors: [(15, PathBuf::from("/pg/15/bin")), (17, PathBuf::from("/pg/17/bin"))].into(),
            own_folder: PathBuf::from("/own"),
        };
        match (images.resolve(image), expected) {
            (Ok(image), Ok(path)) => assert!(image.env["PATH"].starts_with(path), "{image:?}"),
            (Err(words), Err(expected)) => assert!(words.contains(expected), "{words}"),
            (got, wanted) => panic!("{image}: got {got:?}, wanted {wanted:?}"),
        }
    }

    #[test]
    fn images_are_resolved_by_repository_and_major() {
        check("postgres:15", Ok("/pg/15/bin:"));
        check("postgres:17.4-bookworm", Ok("/pg/17/bin:"));
        check("docker.io/library/postgres:15@sha256:00", Ok("/pg/15/bin:"));
        check("registry.example:5000/pgitops", Ok("/own:"));
        check("registry.example:5000/pgitops:v1", Ok("/own:"));
        check(
            "postgres:16",
            Err("PostgreSQL 16 is not installed on this machine: there is 15, 17"),
        );
        check("postgres", Err("postgres is not installed"));
        check("postgres:latest", Err("postgres:latest is not installed"));
        check("pgitops:v1", Err("not known to the sandbox"));
        check("nginx", Err("it knows docker.io/library/postgres:MAJOR"));
    }
}
