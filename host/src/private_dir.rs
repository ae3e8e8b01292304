//! Directories that hold what others must neither change nor see: machine code that is executed, recorded modules, the control
//! socket. Each is ours alone: owned by us, mode 0700, no symbolic link. Used at start-up only.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::Path,
};

/// Makes the directory and those above it if need be, and checks that it is ours alone.
///
/// # Errors
/// A sentence that says why it is not.
pub(crate) fn prepare(path: &Path) -> Result<(), String> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("`{}` cannot be made: {error}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(format!("`{}` cannot be made: {error}", path.display()));
        }
        _ => {}
    }
    check(path)
}

/// Whether the directory is ours alone.
///
/// # Errors
/// A sentence that says why it is not.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    check_for(path, rustix::process::geteuid().as_raw())
}

fn check_for(path: &Path, user: u32) -> Result<(), String> {
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
        prepare(&path).expect("made");
        prepare(&path).expect("found again");
        let user = rustix::process::geteuid().as_raw();
        assert!(check_for(&path, user + 1).expect_err("not ours").contains("another user"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        assert!(prepare(&path).expect_err("readable").contains("chmod 700"));
        fs::remove_dir(&path).expect("empty");
    }

    #[test]
    fn a_link_is_refused() {
        let path = scratch("link");
        std::os::unix::fs::symlink(std::env::temp_dir(), &path).expect("new");
        assert!(prepare(&path).expect_err("link").contains("not a directory"));
        fs::remove_file(&path).expect("ours");
    }
}
