//! Noticing that a module has changed: a file, or the sources of the Cargo package that builds it.
//!
//! By asking the file system again and again, because that works on every one, and with renames, bind mounts and links
//! that are turned. A change counts once nothing has changed any more for a while, so that a file that is written
//! slowly is not loaded half. Time is handed in. Looking is all that is done here: who polls also loads, on a thread of
//! its own.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::package;

/// How long a change must have stood still.
const QUIET: Duration = Duration::from_millis(200);

/// The same for a file that was found to be a part of one, whose writer pauses longer than that.
const QUIET_AFTER_PART: Duration = Duration::from_secs(2);

/// A file that is older than this when it comes was not saved but moved.
const OLD: Duration = Duration::from_secs(2);

const INTERVAL: Duration = Duration::from_millis(100);

/// Polling takes at most one part in so many of a processor.
const INTERVAL_PER_LOOK: u32 = 10;

/// Bounds on a package: files and directories, and levels of directories.
const MOST_ENTRIES: usize = 20_000;
const DEEPEST: usize = 32;

/// A file or a package that is watched.
pub(crate) struct Watched {
    path: PathBuf,
    /// What was loaded.
    taken: Option<Snapshot>,
    /// What was there at the last poll, and since when it has been the same.
    seen: Option<(Snapshot, Instant)>,
    quiet: Duration,
    interval: Duration,
}

/// What [`Watched::poll`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// What was taken is there; or nothing at all, since many tools delete a file before they write it anew.
    Unchanged,
    /// Something else is there, and may not be complete.
    Changing,
    /// Something else is there, and has not changed for a while: load it. Said again until [`Watched::taken`].
    Stable,
}

/// The files that make up what is watched.
type Snapshot = BTreeMap<PathBuf, Stamp>;

/// What differs when a file was replaced or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        let modified = (file.mtime(), file.mtime_nsec());
        Self { device: file.dev(), inode: file.ino(), size: file.size(), modified }
    }
}

impl Watched {
    /// Watches `path`. What is there now counts as taken, so this comes before the first load.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let mut watched = Self { path: path.into(), taken: None, seen: None, quiet: QUIET, interval: INTERVAL };
        watched.taken = watched.look();
        watched
    }

    /// Looks whether something has changed.
    pub(crate) fn poll(&mut self, now: Instant) -> Change {
        let Some(there) = self.look() else {
            self.seen = None;
            return Change::Unchanged;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == there => *since,
            _ => {
                self.quiet = QUIET;
                now
            }
        };
        let is_taken = self.taken.as_ref() == Some(&there);
        self.seen = Some((there, since));
        if is_taken {
            Change::Unchanged
        } else if now.saturating_duration_since(since) < self.quiet {
            Change::Changing
        } else {
            Change::Stable
        }
    }

    /// Whether the last poll has found anything.
    pub(crate) fn is_there(&self) -> bool {
        self.seen.is_some()
    }

    /// How long ago the last poll's finding was saved: the youngest file's age, or, if that file was only moved here,
    /// since when it has been seen.
    pub(crate) fn age(&self) -> Duration {
        let Some((files, since)) = &self.seen else { return Duration::ZERO };
        let newest = files.values().map(|file| file.modified).max().unwrap_or_default();
        let (seconds, nanoseconds) = (u64::try_from(newest.0).unwrap_or(0), u32::try_from(newest.1).unwrap_or(0));
        let saved = UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        let seen = since.elapsed();
        let age = saved.elapsed().unwrap_or(seen);
        if age < seen + OLD { age } else { seen }
    }

    /// How long to wait before the next poll.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// What the last poll found is being loaded. To be called before that begins: what changes meanwhile is the next
    /// change.
    pub(crate) fn taken(&mut self) {
        self.taken = self.seen.as_ref().map(|(seen, _)| seen.clone());
    }

    /// What was taken is a part of a file. Says whether there may be more to come: then it counts as not taken, and is
    /// reported when it has changed, or after a longer time. If it comes to that, there is no more: time to say what is
    /// wrong with it.
    pub(crate) fn waiting_for_more(&mut self) -> bool {
        if self.quiet == QUIET_AFTER_PART {
            return false;
        }
        self.quiet = QUIET_AFTER_PART;
        self.taken = None;
        true
    }

    /// What is there now, if anything is.
    fn look(&mut self) -> Option<Snapshot> {
        let there = fs::metadata(&self.path).ok()?;
        if !there.is_dir() {
            self.interval = INTERVAL;
            return Some(Snapshot::from([(self.path.clone(), Stamp::of(&there))]));
        }
        fs::metadata(self.path.join("Cargo.toml")).ok()?;
        let begun = Instant::now();
        let mut files = Snapshot::new();
        let mut left = MOST_ENTRIES;
        for dir in package::directories(&self.path) {
            // What cannot be read cannot be built either, and cargo says so.
            let _ = add_files(&dir, &dir.join("target"), DEEPEST, &mut left, &mut files);
        }
        if left == 0 && self.seen.is_none() {
            log::warn!("`{}` has more than {MOST_ENTRIES} files: some are not watched", self.path.display());
        }
        self.interval = INTERVAL.max(begun.elapsed() * INTERVAL_PER_LOOK);
        Some(files)
    }
}

/// Adds the files in `dir` and below that make up a package: nothing hidden, and nothing that cargo has made, which is
/// in `target` or in a directory with the mark of caches. Directories are not followed through links, which may lead
/// anywhere.
fn add_files(dir: &Path, target: &Path, depth: usize, left: &mut usize, files: &mut Snapshot) -> io::Result<()> {
    if depth == 0 || dir == target || dir.join("CACHEDIR.TAG").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if *left == 0 {
            break;
        }
        *left -= 1;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = add_files(&path, target, depth - 1, left, files);
        } else if let Ok(file) = fs::metadata(&path)
            && file.is_file()
        {
            files.insert(path, Stamp::of(&file));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::symlink, process, sync::atomic::AtomicU32};

    use super::*;

    /// A directory of this test's own, gone with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("astra-host-watch-{}-{number}", process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("in here")).expect("ours");
            fs::write(&path, content).expect("ours");
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Something watched, and a clock that goes only when it is told to.
    struct Watch(Watched, Instant);

    impl Watch {
        fn new(path: &Path) -> Self {
            Self(Watched::new(path), Instant::now())
        }

        fn after(&mut self, milliseconds: u64) -> Change {
            self.1 += Duration::from_millis(milliseconds);
            self.0.poll(self.1)
        }

        /// Asserts that something has changed, and takes it once it has stood still.
        fn expect_change(&mut self) {
            assert_eq!(self.after(100), Change::Changing);
            assert_eq!(self.after(200), Change::Stable);
            self.0.taken();
            assert_eq!(self.after(0), Change::Unchanged);
        }

        fn expect_none(&mut self) {
            assert_eq!(self.after(100), Change::Unchanged);
            assert_eq!(self.after(1000), Change::Unchanged);
        }
    }

    #[test]
    fn a_file_is_reported_when_it_has_stood_still_until_it_is_taken() {
        let dir = Dir::new();
        let path = dir.file("app.wasm", "1");
        let mut watch = Watch::new(&path);
        watch.expect_none();
        assert_eq!(watch.0.interval(), INTERVAL);
        for part in ["12", "123", "1234"] {
            dir.file("app.wasm", part);
            assert_eq!(watch.after(199), Change::Changing);
        }
        assert_eq!(watch.after(199), Change::Changing);
        assert_eq!(watch.after(1), Change::Stable);
        assert_eq!(watch.after(1000), Change::Stable);
        watch.0.taken();
        watch.expect_none();
    }

    #[test]
    fn a_file_of_the_same_size_is_another_when_it_was_replaced_or_written_to() {
        let dir = Dir::new();
        let path = dir.file("app.wasm", "1");
        let modified = fs::metadata(&path).expect("there").modified().expect("known");
        let mut watch = Watch::new(&path);
        let other = dir.file("other.wasm", "2");
        File::options().append(true).open(&other).and_then(|file| file.set_modified(modified)).expect("ours");
        fs::rename(other, &path).expect("ours");
        watch.expect_change();
        let later = modified + Duration::from_nanos(1000);
        File::options().append(true).open(&path).and_then(|file| file.set_modified(later)).expect("ours");
        watch.expect_change();
    }

    #[test]
    fn a_file_that_is_gone_is_no_change_until_it_is_back() {
        let dir = Dir::new();
        let path = dir.file("app.wasm", "1");
        let mut watch = Watch::new(&path);
        fs::remove_file(&path).expect("ours");
        watch.expect_none();
        dir.file("app.wasm", "new");
        watch.expect_change();

        dir.file("app.wasm", "newer");
        assert_eq!(watch.after(100), Change::Changing);
        fs::remove_file(&path).expect("ours");
        watch.expect_none();
    }

    #[test]
    fn what_changes_while_it_is_loaded_is_the_next_change() {
        let dir = Dir::new();
        let path = dir.file("app.wasm", "1");
        let mut watch = Watch::new(&path);
        dir.file("app.wasm", "12");
        assert_eq!(watch.after(0), Change::Changing);
        assert_eq!(watch.after(200), Change::Stable);
        dir.file("app.wasm", "123");
        watch.0.taken();
        watch.expect_change();
    }

    #[test]
    fn a_part_is_reported_again_when_it_has_changed_or_nobody_adds_to_it() {
        let dir = Dir::new();
        let path = dir.file("app.wasm", "1");
        let mut watch = Watch::new(&path);
        dir.file("app.wasm", "12");
        watch.expect_change();
        assert!(watch.0.waiting_for_more());
        assert_eq!(watch.after(1000), Change::Changing);
        dir.file("app.wasm", "123");
        watch.expect_change();

        assert!(watch.0.waiting_for_more(), "it has changed since");
        assert_eq!(watch.after(1799), Change::Changing);
        assert_eq!(watch.after(1), Change::Stable);
        watch.0.taken();
        assert!(!watch.0.waiting_for_more(), "there was time enough");
        watch.expect_none();
    }

    #[test]
    fn a_link_that_is_turned_is_a_change() {
        let dir = Dir::new();
        dir.file("v1/app.wasm", "1");
        dir.file("v2/app.wasm", "2");
        symlink("v1", dir.0.join("data")).expect("ours");
        symlink("data/app.wasm", dir.0.join("app.wasm")).expect("ours");
        let mut watch = Watch::new(&dir.0.join("app.wasm"));
        symlink("v2", dir.0.join("next")).expect("ours");
        fs::rename(dir.0.join("next"), dir.0.join("data")).expect("ours");
        watch.expect_change();
    }

    #[test]
    fn a_package_is_its_sources_and_not_what_cargo_makes_of_them() {
        let dir = Dir::new();
        dir.file("Cargo.toml", "[package]");
        dir.file("src/lib.rs", "");
        dir.file("made/CACHEDIR.TAG", "");
        symlink(".", dir.0.join("src/loop")).expect("ours");
        let mut watch = Watch::new(&dir.0);
        for ignored in ["target/debug/app", "made/debug/app", ".git/index", "src/.lib.rs.swp"] {
            dir.file(ignored, "new");
        }
        watch.expect_none();
        for (source, content) in [("src/lib.rs", "//"), ("src/target/mod.rs", "//"), ("build.rs", "")] {
            dir.file(source, content);
            watch.expect_change();
        }
        fs::remove_file(dir.0.join("build.rs")).expect("ours");
        watch.expect_change();
        fs::remove_file(dir.0.join("Cargo.toml")).expect("ours");
        watch.expect_none();
    }

    #[test]
    fn a_package_is_its_path_dependencies_too() {
        let dir = Dir::new();
        let depends = |on: &str| format!("[dependencies]\ndependency = {{ {on} }}\n");
        dir.file("Cargo.toml", "[workspace.dependencies]\ndependency = { path = \"b\" }\n");
        dir.file("a/Cargo.toml", &depends("workspace = true"));
        dir.file("b/Cargo.toml", &format!("[target.'cfg(unix)'.{}", &depends("path = \"../c\"")[1..]));
        dir.file("c/Cargo.toml", &depends("path = \"../a\""));
        let mut watch = Watch::new(&dir.0.join("a"));
        for source in ["b/src/lib.rs", "c/src/lib.rs", "a/src/lib.rs"] {
            dir.file(source, "");
            watch.expect_change();
        }
        dir.file("d/src/lib.rs", "");
        watch.expect_none();
        dir.file("d/Cargo.toml", "");
        dir.file("a/Cargo.toml", &depends("path = \"../d\""));
        watch.expect_change();
        dir.file("d/src/lib.rs", "//");
        watch.expect_change();
    }

    #[test]
    fn there_is_a_bound_on_what_a_package_may_have() {
        let dir = Dir::new();
        for name in ["1", "2", "3", "4/5/6"] {
            dir.file(name, "");
        }
        let found = |depth, mut left| {
            let mut files = Snapshot::new();
            add_files(&dir.0, Path::new("none"), depth, &mut left, &mut files).expect("can be listed");
            files.len()
        };
        assert_eq!((found(3, 100), found(2, 100), found(0, 100)), (4, 3, 0));
        assert!(found(3, 2) <= 2);
    }
}
