//! Where compiled modules are kept between runs.
//!
//! What lies in the cache is executed, so its directory must be ours alone: owned by us, mode 0700, no symbolic link. If
//! none can be had the cache is off and start-up says why; a host without a cache compiles each time and is otherwise
//! the same. Used at start-up only.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// A directory that is safe to execute from, made if need be.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn directory() -> Result<PathBuf, String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let candidates = [
        variable("XDG_CACHE_HOME").map(|base| base.join("astra-host")),
        variable("HOME").map(|home| home.join(".cache/astra-host")),
        Some(std::env::temp_dir().join(format!("astra-host-{user}"))),
    ];
    let mut reason = String::new();
    for path in candidates.into_iter().flatten() {
        match prepare(&path, user) {
            Ok(()) => return Ok(path),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}

fn prepare(path: &Path, user: u32) -> Result<(), String> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("`{}` cannot be made: {error}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("`{}` cannot be made: {error}", path.display()));
        }
        _ => {}
    }
    check(path, user)
}

fn check(path: &Path, user: u32) -> Result<(), String> {
    let shown = path.display();
    let found = fs::symlink_metadata(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    if !found.is_dir() {
        return Err(format!("`{shown}` is not a directory"));
    }
    if found.uid() != user {
        return Err(format!("`{shown}` belongs to another user"));
    }
    if found.mode() & 0o077 != 0 {
        return Err(format!("`{shown}` is open to others; `chmod 700 {shown}` makes it usable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("astra-host-test-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_new_directory_is_private() {
        let path = scratch("new");
        let user = rustix::process::geteuid().as_raw();
        prepare(&path, user).expect("made");
        prepare(&path, user).expect("found again");
        assert!(check(&path, user + 1).expect_err("not ours").contains("another user"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        assert!(prepare(&path, user).expect_err("readable").contains("chmod 700"));
        fs::remove_dir(&path).expect("empty");
    }

    #[test]
    fn a_link_is_refused() {
        let path = scratch("link");
        std::os::unix::fs::symlink(std::env::temp_dir(), &path).expect("new");
        let user = rustix::process::geteuid().as_raw();
        assert!(prepare(&path, user).expect_err("link").contains("not a directory"));
        fs::remove_file(&path).expect("ours");
    }
}
