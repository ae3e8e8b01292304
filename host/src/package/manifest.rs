//! What a Cargo package says about itself in Cargo.toml: what its module is called, and which directories it is made from.
//!
//! Reads files, runs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::Table;

use super::BuildError;
use crate::config::handler_name;

/// Packages that one is followed to by its path dependencies, at most.
const MOST_DIRECTORIES: usize = 64;

/// The name of the module that `path` stands for, without the extension and without building it: what a handler is called that was
/// given no name.
///
/// # Errors
/// The directory is no package, or its manifest cannot be read.
pub fn name(path: &Path) -> Result<String, BuildError> {
    if !path.is_dir() {
        return Ok(handler_name(path));
    }
    let manifest = read(&manifest_in(path)?)?;
    let package = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let package = package.ok_or_else(|| BuildError::NoGuest { dir: path.to_owned() })?;
    let program = || manifest.get("bin")?.get(0)?.get("name")?.as_str();
    Ok(match manifest.get("lib").filter(|lib| is_cdylib(lib)) {
        // The file of a library is called like the crate, that of a program like the program.
        Some(lib) => lib.get("name").and_then(toml::Value::as_str).unwrap_or(package).replace('-', "_"),
        None => program().unwrap_or(package).to_owned(),
    })
}

fn is_cdylib(lib: &toml::Value) -> bool {
    let kinds = ["crate-type", "crate_type"].iter().find_map(|key| lib.get(key)?.as_array());
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")))
}

/// The directories that the package in `dir` is made from: its own, and those of its path dependencies, theirs too. What cannot be
/// read is left out: cargo will say what is wrong with it.
pub(crate) fn directories(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(dir) = ahead.pop() {
        let Ok(dir) = fs::canonicalize(dir) else { continue };
        if found.len() < MOST_DIRECTORIES && !found.contains(&dir) {
            ahead.extend(path_dependencies(&dir));
            found.push(dir);
        }
    }
    found
}

/// Where the dependencies are that the manifest in `dir` has by path, itself or through its workspace.
fn path_dependencies(dir: &Path) -> Vec<PathBuf> {
    let Ok(manifest) = read(&dir.join("Cargo.toml")) else { return Vec::new() };
    let of_targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(Table::values);
    let all = of_targets.filter_map(toml::Value::as_table).chain([&manifest]);
    let all = all.flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")]).flatten();
    let path_of = |dependency: &toml::Value| Some(dependency.get("path")?.as_str()?.to_owned());

    let (mut paths, mut inherited) = (Vec::new(), Vec::new());
    for (name, dependency) in all.filter_map(toml::Value::as_table).flatten() {
        paths.extend(path_of(dependency).map(|path| dir.join(path)));
        if dependency.get("workspace").is_some() {
            inherited.push(name);
        }
    }
    if !inherited.is_empty()
        && let Some((root, workspace)) = dir.ancestors().find_map(workspace_in)
    {
        let of_workspace = |name: &&String| path_of(workspace.get("dependencies")?.get(name.as_str())?);
        paths.extend(inherited.iter().filter_map(of_workspace).map(|path| root.join(path)));
    }
    paths
}

/// The workspace whose root is `dir`, if it is one.
fn workspace_in(dir: &Path) -> Option<(&Path, toml::Value)> {
    Some((dir, read(&dir.join("Cargo.toml")).ok()?.remove("workspace")?))
}

/// The path of the manifest in `dir`.
pub(crate) fn manifest_in(dir: &Path) -> Result<PathBuf, BuildError> {
    let manifest = dir.join("Cargo.toml");
    if manifest.is_file() { Ok(manifest) } else { Err(BuildError::NoManifest { dir: dir.to_owned() }) }
}

pub(super) fn read(path: &Path) -> Result<Table, BuildError> {
    let text = fs::read_to_string(path).map_err(|source| BuildError::Unreadable { path: path.to_owned(), source })?;
    text.parse().map_err(|source| BuildError::NotToml { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
pub(super) mod tests {
    use std::env;

    use super::*;

    /// A package whose manifest is this, in a directory of this test's own.
    pub(in crate::package) fn package(name: &str, manifest: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("astra-host-package-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("ours");
        fs::write(dir.join("Cargo.toml"), manifest).expect("ours");
        dir
    }

    #[test]
    fn a_name_is_told_without_building() {
        for (manifest, expected) in [
            ("package.name = 'my-app'\nlib.crate-type = ['cdylib']", "my_app"),
            ("package.name = 'my-app'\nlib.crate-type = ['cdylib']\nlib.name = 'other'", "other"),
            ("package.name = 'my-app'", "my-app"),
            ("package.name = 'my-app'\nlib.name = 'other'\nbin = [{ name = 'the-bin' }]", "the-bin"),
        ] {
            let dir = package("name", manifest);
            assert_eq!(name(&dir).expect("it has one"), expected, "{manifest}");
            fs::remove_dir_all(dir).expect("ours");
        }
        assert_eq!(name(Path::new("dir/hello.wasm")).expect("a file"), "hello");
        for (manifest, words) in [("[workspace]", "give the directory of one"), ("[package", "is not a Cargo manifest")]
        {
            let dir = package("nameless", manifest);
            let error = name(&dir).expect_err("it has none").to_string();
            assert!(error.contains(words), "{error}");
            fs::remove_dir_all(dir).expect("ours");
        }
    }
}
