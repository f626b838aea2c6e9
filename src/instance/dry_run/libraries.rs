//! Whether libraries exist where the server would look for them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::super::{options::Options, process};

/// The first library of a list that the server would not find.
pub async fn missing(
    options: &Options,
    parameter: &str,
    listed: &str,
    library_path: &str,
) -> Result<Option<String>, String> {
    let names = split(listed);
    if names.is_empty() {
        return Ok(None);
    }
    let package = package_folder(options).await?;
    // Everybody may set local_preload_libraries, so the server looks only in this folder.
    let plugins = parameter == "local_preload_libraries";
    let found = |name: &str| match plugins {
        true => exists(&package.join("plugins").join(name)),
        false => candidates(name, library_path, &package).iter().any(|file| exists(file)),
    };
    Ok(names.into_iter().find(|name| !found(name)))
}

/// `a, "b c" ,d`: names between commas, quotes around those that need them.
fn split(listed: &str) -> Vec<String> {
    let names = listed.split(',').map(|name| name.trim().trim_matches('"').to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

fn candidates(name: &str, library_path: &str, package: &Path) -> Vec<PathBuf> {
    let expand = |text: &str| PathBuf::from(text.replace("$libdir", &package.to_string_lossy()));
    if name.contains('/') {
        return vec![expand(name)];
    }
    library_path.split(':').map(|folder| expand(folder.trim()).join(name)).collect()
}

/// As written, or with the suffix that the server appends.
fn exists(file: &Path) -> bool {
    let mut with_suffix = file.as_os_str().to_owned();
    with_suffix.push(".so");
    file.is_file() || Path::new(&with_suffix).is_file()
}

/// `$libdir`. Debian keeps `pg_config` beside the server; without it the usual places are tried.
async fn package_folder(options: &Options) -> Result<PathBuf, String> {
    let program = options.program("pg_config");
    if program.is_file() {
        let within = Duration::from_secs(10);
        let ran = process::run(options, &program, ["--pkglibdir"], &[], within).await;
        let ran = ran.map_err(|e| e.to_string())?;
        if ran.success {
            return Ok(PathBuf::from(ran.out.trim()));
        }
    }
    let library = options.bin_directory.join("../lib");
    let places = [library.join("postgresql"), library];
    let found = places.into_iter().find(|place| place.join("plpgsql.so").is_file());
    found.ok_or_else(|| "find the folder of the server's libraries: no pg_config".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_split_as_the_server_splits_them() {
        assert_eq!(split(r#" a ,"b c",, $libdir/d"#), ["a", "b c", "$libdir/d"]);
        assert!(split("").is_empty());
    }

    #[test]
    fn a_name_without_a_slash_is_looked_for_along_the_path() {
        let package = Path::new("/lib");
        let check = |name: &str, path: &str, expect: &[&str]| {
            let expect: Vec<PathBuf> = expect.iter().map(PathBuf::from).collect();
            assert_eq!(candidates(name, path, package), expect);
        };
        check("a", "$libdir", &["/lib/a"]);
        check("a", "/x:$libdir", &["/x/a", "/lib/a"]);
        check("$libdir/a", "/x", &["/lib/a"]);
        check("/y/a", "/x", &["/y/a"]);
    }
}
