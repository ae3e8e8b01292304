//! Directories for a test, removed when it is over.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A new empty directory.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join(Self::name()))
    }

    /// One whose path is short enough for a socket in it.
    pub(crate) fn short() -> Self {
        Self::at(std::env::temp_dir().join(Self::name()))
    }

    fn name() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn at(path: PathBuf) -> Self {
        // A process before this one may have had its number and died.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the target directory can be written to");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, in directories that are made, and says where it is.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("it is in the directory")).expect("can be made");
        fs::write(&path, content).expect("can be written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
