//! Directories that are ours alone: owned by us, mode 0700, no symbolic link. For what must not be read or planted by others:
//! machine code, control sockets.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

/// Makes it and what it is in, if need be, and checks it.
///
/// # Errors
/// A sentence that says why it cannot be used.
pub(crate) fn prepare(path: &Path, user: u32) -> Result<(), String> {
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

/// Whether it is there, ours and closed to others.
///
/// # Errors
/// A sentence that says why not.
pub(crate) fn check(path: &Path, user: u32) -> Result<(), String> {
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
    use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

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
