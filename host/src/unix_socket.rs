//! The file of a Unix socket that listens: made where there is none, or only a dead process's; a live one's, and files of other kinds, are
//! left alone. Used at start-up and at the end, for operators ([`control`](crate::control)) and for clients (`listeners`).
//!
//! Whoever makes a socket holds a lock on `PATH.lock` meanwhile, so that of two that start at once one has the path; whatever way it
//! ends, the system lets go of the lock. A control socket's is held as long as its host lives.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::OwnedFd,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

/// Why there is no socket.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// Somebody listens there, or is about to.
    InUse {
        /// The process, if it is known.
        pid: Option<u32>,
    },
    /// There is a file of another kind.
    NotASocket { path: PathBuf },
    /// The system allows about 100 bytes.
    TooLong,
    /// The system says no.
    System(io::Error),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Whether the address of a socket has room for `path`.
pub(crate) fn fits(path: &Path) -> bool {
    SocketAddr::from_pathname(path).is_ok()
}

/// Makes a socket at `path` and listens. Its lock may be let go of: from now on others see that it is answered.
///
/// # Errors
/// A process listens there, something else is there, or it cannot be made.
pub(crate) fn bind(path: &Path, mode: u32, backlog: i32) -> Result<(UnixListener, Lock), Obstacle> {
    if !fits(path) {
        return Err(Obstacle::TooLong);
    }
    let lock = Lock::take(path)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => return Err(Obstacle::NotASocket { path: path.to_owned() }),
        // A socket of another program, or one whose lock is not held.
        Ok(_) if is_answered(path) => return Err(Obstacle::InUse { pid: None }),
        Ok(_) => fs::remove_file(path)?,
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens nobody can connect, whatever its mode is: the mask that would do this belongs to all threads.
    let listens = fs::set_permissions(path, Permissions::from_mode(mode)).and_then(|()| socket.listen(backlog));
    if let Err(error) = listens {
        remove(path);
        return Err(error.into());
    }
    Ok((socket.into(), lock))
}

/// The file that a host holds a lock on as long as it lives: who gets it shared knows that the host is gone.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Removes the file at `path` if it is a socket's.
pub(crate) fn remove(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = fs::remove_file(path);
    }
}

/// The file of a socket that listens; it is known again. The system does not give its number to another one as long as the socket is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The one that is at `path`.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Removes it, unless another one is there by now.
    fn remove(&self) {
        if Self::at(&self.path).is_ok_and(|found| found == *self) {
            remove(&self.path);
        }
    }
}

/// The files of the sockets that were made for this host. Dropped, which should come before the sockets are closed, it removes them: who
/// has connected by then is still served, and nobody finds a socket that is not listened on.
#[derive(Debug, Default)]
pub(crate) struct SocketFiles(SocketFilesShare);

/// The same for whoever passes the sockets on.
#[derive(Debug, Clone, Default)]
pub(crate) struct SocketFilesShare {
    files: Arc<Vec<SocketFile>>,
    /// Another process sees to them.
    left: Arc<AtomicBool>,
}

impl SocketFiles {
    /// One more.
    pub(crate) fn add(&mut self, file: SocketFile) {
        Arc::make_mut(&mut self.0.files).push(file);
    }

    /// They are still those of the process that has passed the sockets on, until [`SocketFilesShare::settle`].
    pub(crate) fn inherited(files: Vec<SocketFile>) -> Self {
        Self(SocketFilesShare { files: files.into(), left: Arc::new(AtomicBool::new(true)) })
    }

    pub(crate) fn share(&self) -> SocketFilesShare {
        self.0.clone()
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        if !self.0.left.load(Ordering::SeqCst) {
            self.0.files.iter().for_each(SocketFile::remove);
        }
    }
}

impl SocketFilesShare {
    pub(crate) fn list(&self) -> Vec<SocketFile> {
        Vec::clone(&self.files)
    }

    /// They are this process's from now on.
    pub(crate) fn settle(&self) {
        self.left.store(false, Ordering::SeqCst);
    }

    /// They are another process's from now on.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

/// Whether somebody listens at `path`. Does not wait for a host whose backlog is full.
pub(crate) fn is_answered(path: &Path) -> bool {
    let connect = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    !connect().is_err_and(|error| matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
}

/// A share of a lock that does not keep it.
pub(crate) struct LockShare {
    file: Weak<File>,
    left: Arc<AtomicBool>,
}

impl LockShare {
    /// The same lock once more: it is held as long as anybody has it.
    pub(crate) fn try_clone(&self) -> io::Result<OwnedFd> {
        let file = self.file.upgrade().ok_or(io::ErrorKind::NotFound)?;
        Ok(file.try_clone()?.into())
    }

    /// The lock, its file and the socket's are this process's from now on.
    pub(crate) fn settle(&self) {
        let Some(file) = self.file.upgrade() else { return };
        if let Err(error) = write_pid(&file) {
            log::warn!("the control socket's lock still names another process: {error}");
        }
        self.left.store(false, Ordering::SeqCst);
    }

    /// The lock, its file and the socket's are another process's from now on.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::SeqCst);
    }
}

/// The lock of a socket's path. Dropped, it removes its file before the system lets go of it.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    file: Arc<File>,
    /// Another process has it too, and sees to its file.
    left: Arc<AtomicBool>,
}

impl Lock {
    /// Takes the lock of the socket at `socket`.
    ///
    /// # Errors
    /// Another process has it, or its file is none, or cannot be made.
    pub(crate) fn take(socket: &Path) -> Result<Self, Obstacle> {
        let path = lock_path(socket);
        loop {
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(Obstacle::NotASocket { path });
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Obstacle::InUse { pid: read_pid(&file).ok().flatten().filter(|pid| *pid > 0) });
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            if read_pid(&file)?.is_none() {
                return Err(Obstacle::NotASocket { path });
            }
            let lock = Self { path: path.clone(), file: Arc::new(file), left: Arc::default() };
            // Whoever had it may have removed the file after we had opened it: then others do not see our lock.
            if !lock.is_seen() {
                continue;
            }
            write_pid(&lock.file)?;
            return Ok(lock);
        }
    }

    /// Shares the lock of the socket at `socket` with the process that has passed it on; until [`LockShare::settle`] it is still
    /// that one's.
    pub(crate) fn inherit(socket: &Path, lock: OwnedFd) -> Self {
        Self { path: lock_path(socket), file: Arc::new(lock.into()), left: Arc::new(AtomicBool::new(true)) }
    }

    /// The lock, for whoever passes it on to another process.
    pub(crate) fn share(&self) -> LockShare {
        LockShare { file: Arc::downgrade(&self.file), left: Arc::clone(&self.left) }
    }

    /// Whether the file at its path is still the one that is locked, by us. As long as it is open, no other is taken for it.
    pub(crate) fn is_seen(&self) -> bool {
        if self.left.load(Ordering::SeqCst) {
            return false;
        }
        let identity = |file: &Metadata| (file.dev(), file.ino());
        let Ok(locked) = self.file.metadata() else { return false };
        fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == identity(&locked))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_seen() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

/// The process that wrote a lock file, 0 if none has yet; `None` if a host has not written it at all.
fn read_pid(mut file: &File) -> io::Result<Option<u32>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(16).read_to_end(&mut text)?;
    if text.is_empty() {
        return Ok(Some(0));
    }
    Ok(str::from_utf8(&text).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A directory that is gone at the end of its test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("astra-unix-{}-{name}", process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn listen(path: &Path) -> Result<(UnixListener, SocketFile), Obstacle> {
        let (listener, _lock) = bind(path, 0o666, 8)?;
        Ok((listener, SocketFile::at(path)?))
    }

    fn made(file: SocketFile) -> SocketFiles {
        let mut files = SocketFiles::default();
        files.add(file);
        files
    }

    #[test]
    fn a_socket_has_its_mode_and_leaves_nothing_beside_it() {
        let dir = Scratch::new("mode");
        let path = dir.0.join("a.sock");
        let (_listener, file) = listen(&path).expect("binds");
        assert_eq!(fs::metadata(&path).expect("is there").mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(&dir.0).expect("lists").count(), 1);
        drop(made(file));
        assert_eq!(fs::read_dir(&dir.0).expect("lists").count(), 0);
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
        let dir = Scratch::new("live");
        let path = dir.0.join("a.sock");
        let (listener, file) = listen(&path).expect("binds");
        assert!(matches!(listen(&path), Err(Obstacle::InUse { pid: None })));
        drop(listener);
        let (_listener, new) = listen(&path).expect("binds");
        UnixStream::connect(&path).expect("connects");
        assert_eq!(file.path, new.path);
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = Scratch::new("files");
        let (file, link) = (dir.0.join("file"), dir.0.join("link"));
        fs::write(&file, "mine").expect("writes");
        std::os::unix::fs::symlink(dir.0.join("nowhere"), &link).expect("links");
        for there in [&file, &link, &dir.0] {
            let error = listen(there).expect_err("is no socket");
            assert!(matches!(&error, Obstacle::NotASocket { path } if path == there), "{error:?}");
        }
        assert_eq!(fs::read(&file).expect("reads"), b"mine");
        assert!(matches!(listen(&dir.0.join("none/a.sock")), Err(Obstacle::System(_))));
        assert!(matches!(listen(&dir.0.join("x".repeat(108))), Err(Obstacle::TooLong)));
    }

    #[test]
    fn a_file_is_removed_by_the_process_whose_it_is() {
        let dir = Scratch::new("whose");
        let path = dir.0.join("a.sock");
        let (_first, file) = listen(&path).expect("binds");
        let files = made(file.clone());
        files.share().leave();
        drop(files);
        assert!(path.exists());
        drop(SocketFiles::inherited(vec![file.clone()]));
        assert!(path.exists());

        // Somebody tidied up, and somebody else listens there now.
        fs::remove_file(&path).expect("removes");
        let (_second, new) = listen(&path).expect("binds");
        assert_ne!(new, file);
        drop(made(file));
        assert!(path.exists());
        let files = SocketFiles::inherited(vec![new]);
        files.share().settle();
        drop(files);
        assert!(!path.exists());
    }
}
