//! What outlives a restart: which module an operator has swapped into which handler, and the module itself.
//!
//! A directory that is ours alone and one host's at a time. `recorded.json` says what is swapped, `modules/` holds the files, named by
//! their digests. A file gets its name when it is whole and on the disk, modules before the record that names them: whatever ends us,
//! and when, the record is the old one or the new one, and what it names is there. A host that takes another's place changes nothing
//! before that one has let go. Blocks on the disk; not for workers.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    events::now,
    guest::hex,
    private_dir,
    whole_file::{self, UNFINISHED},
};

/// A state directory, held until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held while files change, which is one at a time then.
    contents: Mutex<Contents>,
    /// Locked, by which other hosts know.
    held: File,
}

#[derive(Debug)]
struct Contents {
    /// As `recorded.json` says, or will say when the directory is this host's.
    records: Records,
    /// Another host has it, too, until [`StateDir::settle`] or from [`StateDir::leave`] on: its files are that one's to change.
    is_ours: bool,
}

type Records = BTreeMap<String, Recorded>;

/// The module that a handler was given while the host served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// SHA-256 of the module, in hexadecimal.
    pub(crate) sha256: String,
    /// SHA-256 of the file that the configuration named then: if it is another one now, that is newer.
    pub(crate) base_sha256: String,
    /// Where the module came from: a path, or `upload`.
    pub(crate) source: String,
    /// When it was recorded, RFC 3339.
    pub(crate) time: String,
    /// The file.
    #[serde(skip)]
    pub(crate) module: PathBuf,
}

/// What is to be recorded.
pub(crate) struct Recording<'a> {
    /// SHA-256 of the module, of which there is a copy.
    pub(crate) sha256: &'a str,
    /// SHA-256 of the file that the configuration names.
    pub(crate) configured: &'a str,
    pub(crate) source: &'a str,
}

impl StateDir {
    /// Opens the directory, made if need be, and clears what a host that was killed has left half done.
    ///
    /// # Errors
    /// It is not ours alone, another host has it, or the disk fails. A `recorded.json` that cannot be understood is reported, and as good
    /// as none.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        prepare(path)?;
        let lock = take_lock(path)?;
        for dir in [path, &path.join("modules")] {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        for entry in fs::read_dir(path.join("uploads"))? {
            fs::remove_file(entry?.path())?;
        }
        Self::read(path, lock, true)
    }

    /// Reads the directory of a host that has passed its lock on, and may still be at work there: until [`Self::settle`] nothing is changed.
    ///
    /// # Errors
    /// It is not ours alone, or the disk fails.
    pub(crate) fn inherit(path: &Path, lock: OwnedFd) -> io::Result<Self> {
        prepare(path)?;
        Self::read(path, lock.into(), false)
    }

    fn read(path: &Path, held: File, is_ours: bool) -> io::Result<Self> {
        let records = read_records(&path.join("recorded.json"))?;
        Ok(Self { path: path.to_owned(), contents: Mutex::new(Contents { records, is_ours }), held })
    }

    /// The host before has let go. What was forgotten meanwhile is forgotten on the disk, too.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let mut contents = self.lock();
        contents.is_ours = true;
        let records = contents.records.clone();
        if read_records(&self.path.join("recorded.json"))? == records {
            return Ok(());
        }
        self.replace(&mut contents, records)
    }

    /// Another process has taken this one's place: what it records is not to be removed.
    pub(crate) fn leave(&self) {
        self.lock().is_ours = false;
    }

    /// Keeps a copy of `module`, a file whose SHA-256 is `sha256`, until [`Self::collect`].
    ///
    /// # Errors
    /// The module is not what it was, or the disk fails.
    pub(crate) fn keep(&self, sha256: &str, module: &Path) -> io::Result<()> {
        if !is_digest(sha256) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{sha256}` is no SHA-256")));
        }
        let _contents = self.lock();
        if !self.keeps(sha256) {
            let from = |copy: &mut File| copy_checked(&mut File::open(module)?, copy, sha256);
            whole_file::write(&self.module(sha256), from)?;
        }
        Ok(())
    }

    /// Whether there is a copy of the module with this SHA-256.
    pub(crate) fn keeps(&self, sha256: &str) -> bool {
        digest(&mut File::open(self.module(sha256))).is_some_and(|digest| digest == sha256)
    }

    /// Records that `handler` was given a module.
    ///
    /// # Errors
    /// The disk fails; then what was recorded before still is.
    pub(crate) fn record(&self, handler: &str, recording: &Recording<'_>) -> io::Result<()> {
        let mut contents = self.lock();
        let Recording { sha256, configured, source } = *recording;
        let recorded = Recorded {
            sha256: sha256.to_owned(),
            base_sha256: configured.to_owned(),
            source: source.to_owned(),
            time: now(),
            module: PathBuf::new(),
        };
        let mut changed = contents.records.clone();
        changed.insert(handler.to_owned(), recorded);
        self.replace(&mut contents, changed)
    }

    /// Forgets what `handler` was given: a restart serves what the configuration names.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn forget(&self, handler: &str) -> io::Result<()> {
        let mut contents = self.lock();
        let mut changed = contents.records.clone();
        match changed.remove(handler) {
            Some(_) => self.replace(&mut contents, changed),
            None => Ok(()),
        }
    }

    /// What `handler` was given, if its module is still what it was. If not, that is reported and it is forgotten.
    pub(crate) fn recorded(&self, handler: &str) -> Option<Recorded> {
        let recorded = self.lock().records.get(handler)?.clone();
        let module = self.module(&recorded.sha256);
        if digest(&mut File::open(&module)).is_some_and(|digest| digest == recorded.sha256) {
            return Some(Recorded { module, ..recorded });
        }
        log::error!(
            "handler `{handler}`: the module that it was given at {} is missing or damaged (`{}`); the configured one is served",
            recorded.time,
            module.display()
        );
        if let Err(error) = self.forget(handler) {
            log::error!("handler `{handler}`: `{}` cannot be changed: {error}", self.path.display());
        }
        None
    }

    /// Forgets the handlers that are not among these: one that comes again later is what is configured.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn retain(&self, handlers: &[&str]) -> io::Result<()> {
        let mut contents = self.lock();
        let mut changed = contents.records.clone();
        changed.retain(|handler, _| handlers.contains(&handler.as_str()));
        if changed.len() == contents.records.len() { Ok(()) } else { self.replace(&mut contents, changed) }
    }

    /// Removes the modules that are neither recorded nor in use. Whoever keeps a module must have said before that it is: it is asked for
    /// while nobody keeps any.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn collect(&self, in_use: impl FnOnce() -> Vec<String>) -> io::Result<()> {
        let contents = self.lock();
        if !contents.is_ours {
            return Ok(());
        }
        let in_use = in_use();
        for entry in fs::read_dir(self.path.join("modules"))? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default();
            let is_wanted = contents.records.values().any(|recorded| *recorded.sha256 == *stem)
                || in_use.iter().any(|sha256| **sha256 == *stem);
            if !is_wanted {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same lock once more: it is held as long as anybody has it.
    ///
    /// # Errors
    /// There are no more file descriptors to be had.
    pub(crate) fn lock_again(&self) -> io::Result<OwnedFd> {
        Ok(self.held.try_clone()?.into())
    }

    /// Where modules are kept while they are swapped in.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.path.join("uploads")
    }

    fn module(&self, sha256: &str) -> PathBuf {
        self.path.join("modules").join(sha256).with_extension("wasm")
    }

    /// On the disk first, if that is ours to change.
    fn replace(&self, contents: &mut Contents, changed: Records) -> io::Result<()> {
        if !contents.is_ours {
            contents.records = changed;
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&changed)?;
        let path = self.path.join("recorded.json");
        let written = whole_file::write(&path, |file| file.write_all(&text));
        // What failed may still have been done: the disk has the last word.
        if written.is_ok() {
            contents.records = changed;
        } else if let Ok(records) = read_records(&path) {
            contents.records = records;
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Nothing panics while the lock is held; if it did, the records would still be what the disk says.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prepare(path: &Path) -> io::Result<()> {
    for dir in [path, &path.join("modules"), &path.join("uploads")] {
        private_dir::prepare(dir).map_err(io::Error::other)?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> io::Result<File> {
    let lock = File::create(path.join("lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!(
                "`{}` is another running host's; stop that one, or give this one a directory of its own",
                path.display()
            ),
        ),
    })?;
    Ok(lock)
}

fn read_records(path: &Path) -> io::Result<Records> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::new()),
        text => text?,
    };
    let mut records: Records = serde_json::from_slice(&text).unwrap_or_else(|error| {
        log::error!("`{}` is damaged, so the configured modules are served: {error}", path.display());
        Records::new()
    });
    // It becomes a part of a path.
    records.retain(|_, recorded| is_digest(&recorded.sha256));
    Ok(records)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest of a file that can be read.
fn digest(file: &mut io::Result<File>) -> Option<String> {
    copy_digested(file.as_mut().ok()?, &mut io::sink()).ok()
}

fn copy_checked(from: &mut File, to: &mut File, sha256: &str) -> io::Result<()> {
    match copy_digested(from, to)? {
        digest if digest == sha256 => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the module has changed since it was loaded")),
    }
}

/// Copies all of `from` and returns its SHA-256.
fn copy_digested(from: &mut File, to: &mut impl Write) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => {
                hash.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
        }
    }
}

/// Where the state is of the host that serves `identity`, the canonical path of its configuration file or of its module:
/// `astra-host/NAME-HASH` in `$XDG_STATE_HOME`, or in `~/.local/state`. None where there is neither.
pub(crate) fn default_path(identity: &Path) -> Option<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")))?;
    Some(base.join("astra-host").join(directory_name(identity)))
}

fn directory_name(identity: &Path) -> String {
    let name = identity.file_stem().unwrap_or_default().to_string_lossy();
    let hash = hex(&Sha256::digest(identity.as_os_str().as_encoded_bytes()));
    format!("{name}-{}", &hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("astra-host-state-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }

        fn state(&self) -> PathBuf {
            self.0.join("state")
        }

        /// A module and its digest.
        fn module(&self, content: &str) -> (PathBuf, String) {
            let path = self.0.join("app.wasm");
            fs::write(&path, content).expect("ours");
            (path, hex(&Sha256::digest(content)))
        }

        fn modules(&self) -> usize {
            fs::read_dir(self.state().join("modules")).expect("is there").count()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn keep_and_record(state: &StateDir, sha256: &str, base: &str, module: &Path) -> io::Result<()> {
        state.keep(sha256, module)?;
        state.record("hello", &Recording { sha256, configured: base, source: "upload" })
    }

    #[test]
    fn what_is_recorded_is_there_after_a_restart() {
        let scratch = Scratch::new("restart");
        let (path, sha256) = scratch.module("one");
        let state = StateDir::open(&scratch.state()).expect("opens");
        assert_eq!(state.recorded("hello"), None);
        keep_and_record(&state, &sha256, "base", &path).expect("records");
        fs::write(path, "something else").expect("ours");
        drop(state);
        let state = StateDir::open(&scratch.state()).expect("opens");
        let recorded = state.recorded("hello").expect("is recorded");
        assert_eq!((recorded.base_sha256.as_str(), recorded.source.as_str()), ("base", "upload"));
        assert_eq!(fs::read(&recorded.module).expect("is kept"), b"one");
        state.forget("hello").expect("forgets");
        state.forget("hello").expect("has forgotten");
        drop(state);
        assert_eq!(StateDir::open(&scratch.state()).expect("opens").recorded("hello"), None);
    }

    #[test]
    fn a_directory_is_one_hosts_at_a_time() {
        let scratch = Scratch::new("two");
        let state = StateDir::open(&scratch.state()).expect("opens");
        let error = StateDir::open(&scratch.state()).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(state);
        StateDir::open(&scratch.state()).expect("is free again");
    }

    #[test]
    fn a_damaged_or_missing_module_is_never_served() {
        let scratch = Scratch::new("damaged");
        let (path, sha256) = scratch.module("whole");
        let state = StateDir::open(&scratch.state()).expect("opens");
        keep_and_record(&state, &sha256, "", &path).expect("records");
        fs::write(state.module(&sha256), "half").expect("ours");
        assert_eq!(state.recorded("hello"), None);
        keep_and_record(&state, &sha256, "", &path).expect("repairs");
        assert!(state.recorded("hello").is_some());
        fs::remove_file(state.module(&sha256)).expect("ours");
        assert_eq!(state.recorded("hello"), None);
        assert!(state.lock().records.is_empty(), "it is forgotten");
    }

    #[test]
    fn a_module_that_has_changed_since_is_not_recorded() {
        let scratch = Scratch::new("changed");
        let (path, sha256) = scratch.module("loaded");
        let state = StateDir::open(&scratch.state()).expect("opens");
        keep_and_record(&state, &sha256, "", &path).expect("records");
        let (path, _) = scratch.module("changed");
        let error = state.keep(&"0".repeat(64), &path).expect_err("another one");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(state.recorded("hello").expect("as before").sha256, sha256);
        assert_eq!(scratch.modules(), 1, "nothing is left of it");
        assert!(state.keep("../../x", &path).is_err());
    }

    #[test]
    fn what_a_killed_host_has_left_half_done_is_cleared() {
        let scratch = Scratch::new("killed");
        let (path, sha256) = scratch.module("old");
        let state = StateDir::open(&scratch.state()).expect("opens");
        keep_and_record(&state, &sha256, "", &path).expect("records");
        drop(state);
        // Killed while a module was copied, and then while the record was written.
        fs::write(scratch.state().join("modules").join(format!("{UNFINISHED}ab.wasm-1")), "ha").expect("ours");
        fs::write(scratch.state().join(format!("{UNFINISHED}recorded.json-1")), "{ \"hello\": ").expect("ours");
        let state = StateDir::open(&scratch.state()).expect("opens");
        assert_eq!(state.recorded("hello").expect("the old one").sha256, sha256);
        assert_eq!(scratch.modules(), 1);
        assert!(!scratch.state().join(format!("{UNFINISHED}recorded.json-1")).exists());
    }

    #[test]
    fn who_takes_over_changes_nothing_before_the_other_has_let_go() {
        let scratch = Scratch::new("inherited");
        let (path, sha256) = scratch.module("one");
        let old = StateDir::open(&scratch.state()).expect("opens");
        keep_and_record(&old, &sha256, "", &path).expect("records");
        let recorded = || fs::read(scratch.state().join("recorded.json")).expect("is there");
        let (before, uploaded) = (recorded(), old.uploads().join("upload-1-0.wasm"));
        fs::write(&uploaded, "half").expect("ours");

        let new = StateDir::inherit(&scratch.state(), old.lock_again().expect("once more")).expect("reads");
        new.forget("hello").expect("is noted");
        new.collect(Vec::new).expect("has nothing to do");
        assert_eq!((new.recorded("hello"), recorded()), (None, before));
        assert!(uploaded.exists() && old.recorded("hello").is_some(), "the old one is not disturbed");
        new.settle().expect("forgets");
        assert_eq!(recorded(), b"{}");

        // What the new one records is not the old one's to remove.
        old.leave();
        let (path, sha256) = scratch.module("two");
        keep_and_record(&new, &sha256, "", &path).expect("records");
        old.collect(Vec::new).expect("has nothing to do");
        assert_eq!(new.recorded("hello").expect("is recorded").sha256, sha256);
    }

    #[test]
    fn a_damaged_record_is_as_good_as_none() {
        let scratch = Scratch::new("record");
        drop(StateDir::open(&scratch.state()).expect("opens"));
        let escape = r#"{ "hello": { "sha256": "../../x", "base_sha256": "", "source": "", "time": "" } }"#;
        for text in ["{", "", "[]", escape] {
            fs::write(scratch.state().join("recorded.json"), text).expect("ours");
            let state = StateDir::open(&scratch.state()).expect("opens");
            assert_eq!(state.recorded("hello"), None, "{text}");
        }
    }

    #[test]
    fn modules_that_nobody_refers_to_are_collected() {
        let scratch = Scratch::new("collect");
        let state = StateDir::open(&scratch.state()).expect("opens");
        let digests = ["one", "two", "three"].map(|content| {
            let (path, sha256) = scratch.module(content);
            keep_and_record(&state, &sha256, "", &path).expect("records");
            sha256
        });
        state.collect(|| vec![digests[0].clone()]).expect("collects");
        let left = digests.map(|sha256| state.module(&sha256).exists());
        assert_eq!(left, [true, false, true], "in use, nobody's, recorded");
    }

    #[test]
    fn each_host_has_a_directory_of_its_own() {
        let name = directory_name(Path::new("/srv/a/astra.toml"));
        assert!(name.starts_with("astra-") && name.len() == 22, "{name}");
        assert_ne!(name, directory_name(Path::new("/srv/b/astra.toml")));
    }
}
