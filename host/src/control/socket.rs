//! The control socket's file: only its owner can reach it, one host has it, and a dead host's is told from a live one's.
//!
//! A host holds a lock on `PATH.lock` as long as it lives: whatever way it ends, the system lets go of it. Used at start-up and
//! shutdown, and by the command line to find hosts. Nothing is ever removed here that a host did not make.

use std::{
    env,
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

use socket2::{Domain, SockAddr, Socket, Type};

use crate::private_dir;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// What is kept of a host's name in the name of its socket: a socket's path may have about 100 bytes in all.
const NAME: usize = 24;

/// A socket that is this host's. Dropped, which should come last when a host ends, it removes what it made.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    // Let go of last: until then the path is ours.
    lock: Lock,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Somebody listens there.
    #[error(
        "control socket `{}` is in use by a running host{holder}: `astra-host stop --control {}` ends it, or choose another path",
        path.display(), path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// ` (pid 123)`, if it is known.
        holder: String,
    },
    /// There is something that no host has made.
    #[error("`{}` is not a file of a control socket, so it was left alone: choose another path", path.display())]
    NotOurs {
        /// What is there.
        path: PathBuf,
    },
    /// The system allows about 100 bytes.
    #[error("the path of control socket `{}` is too long: choose one of less than 100 bytes", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// There is no directory for it.
    #[error("there is no directory for the control socket: {reason}; give its path with `control`")]
    NoDirectory {
        /// Why the last one that was tried is none.
        reason: String,
    },
    /// The system says no.
    #[error("cannot make control socket `{}`: choose a path in a directory that exists and may be written", path.display())]
    Make {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Makes a socket of mode 0600 at `path` and listens. What a dead host left there is taken over.
    ///
    /// # Errors
    /// A host lives there, something else is there, or it cannot be made.
    pub fn bind(path: &Path) -> Result<(UnixListener, Self), SocketError> {
        let failed = |source| SocketError::Make { path: path.to_owned(), source };
        if SocketAddr::from_pathname(path).is_err() {
            return Err(SocketError::TooLong { path: path.to_owned() });
        }
        let lock = Lock::take(path)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotOurs { path: path.to_owned() });
            }
            // A socket of another program, or one whose lock file was swept away.
            Ok(_) if is_answered(path) => {
                return Err(SocketError::InUse { path: path.to_owned(), holder: String::new() });
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.bind(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
        let made = Self { path: path.to_owned(), lock };
        // Before it listens nobody can connect, whatever its mode is: the mask that would do this belongs to all threads.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        socket.listen(BACKLOG).map_err(failed)?;
        Ok((socket.into(), made))
    }

    /// Shares a socket that listens at `path`, and the lock of that path, with the host that has passed them on; until
    /// [`LockShare::settle`] they are still that one's.
    pub(crate) fn inherit(path: &Path, socket: OwnedFd, lock: OwnedFd) -> (UnixListener, Self) {
        let left = Arc::new(AtomicBool::new(true));
        let lock = Lock { path: lock_path(path), file: Arc::new(lock.into()), left };
        (socket.into(), Self { path: path.to_owned(), lock })
    }

    /// The lock, for whoever passes it on to another process.
    pub(crate) fn lock(&self) -> LockShare {
        LockShare { file: Arc::downgrade(&self.lock.file), left: Arc::clone(&self.lock.left) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Without the lock's file the socket may be a successor's. Left behind, it is a dead host's, which the next one takes over.
        if self.lock.is_seen() {
            remove_socket(&self.path);
        }
    }
}

/// Where the socket of a host called `name` is unless told otherwise: in a directory of this user's, made if need be.
///
/// # Errors
/// There is no such directory.
pub fn default_path(name: &str) -> Result<PathBuf, SocketError> {
    let user = rustix::process::geteuid().as_raw();
    let mut reason = String::new();
    for dir in directories(user) {
        match private_dir::prepare(&dir) {
            Ok(()) => {
                let path = dir.join(file_name(name, process::id()));
                match SocketAddr::from_pathname(&path) {
                    Ok(_) => return Ok(path),
                    Err(_) => reason = format!("`{}` is too long for a socket", path.display()),
                }
            }
            Err(why) => reason = why,
        }
    }
    Err(SocketError::NoDirectory { reason })
}

/// The sockets of this user's running hosts that are where [`default_path`] puts them. What dead hosts left there is removed.
pub fn running() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let dir = directories(user).into_iter().find(|dir| private_dir::check(dir).is_ok());
    dir.map(|dir| running_in(&dir)).unwrap_or_default()
}

/// The file that a host holds a lock on as long as it lives: who gets it shared knows that the host is gone.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn directories(user: u32) -> Vec<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let of_login = [runtime, Some(format!("/run/user/{user}").into())];
    let mut dirs: Vec<_> =
        of_login.into_iter().flatten().filter(|dir| dir.is_dir()).map(|dir| dir.join("astra-host")).collect();
    dirs.push(env::temp_dir().join(format!("astra-host-{user}")));
    dirs
}

fn file_name(name: &str, pid: u32) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = name.chars().map(plain).take(NAME).collect();
    format!("{name}-{pid}.sock")
}

fn running_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut live: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "sock") && is_live(path)).collect();
    live.sort();
    live
}

fn is_live(path: &Path) -> bool {
    if is_answered(path) {
        return true;
    }
    // A host that is just starting has the lock already.
    if let Ok(_lock) = Lock::take(path) {
        remove_socket(path);
    }
    false
}

fn remove_socket(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        let _ = fs::remove_file(path);
    }
}

/// Whether somebody listens at `path`. Does not wait for a host whose backlog is full.
fn is_answered(path: &Path) -> bool {
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
struct Lock {
    path: PathBuf,
    file: Arc<File>,
    /// Another process has it too, and sees to its file.
    left: Arc<AtomicBool>,
}

impl Lock {
    /// Takes the lock of the socket at `socket`.
    fn take(socket: &Path) -> Result<Self, SocketError> {
        let path = lock_path(socket);
        let failed = |source| SocketError::Make { path: socket.to_owned(), source };
        loop {
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                return Err(SocketError::NotOurs { path });
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder =
                        read_pid(&file).ok().flatten().filter(|pid| *pid > 0).map(|pid| format!(" (pid {pid})"));
                    return Err(SocketError::InUse { path: socket.to_owned(), holder: holder.unwrap_or_default() });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            if read_pid(&file).map_err(failed)?.is_none() {
                return Err(SocketError::NotOurs { path });
            }
            let lock = Self { path: path.clone(), file: Arc::new(file), left: Arc::default() };
            // Whoever had it may have removed the file after we had opened it: then others do not see our lock.
            if !lock.is_seen() {
                continue;
            }
            write_pid(&lock.file).map_err(failed)?;
            return Ok(lock);
        }
    }

    /// Whether the file at its path is still the one that is locked, by us. As long as it is open, no other is taken for it.
    fn is_seen(&self) -> bool {
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
    use std::{os::unix::net::UnixStream, sync::Barrier, thread};

    use super::*;

    /// A directory that is gone at the end of its test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("astra-socket-{}-{name}", process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }

        fn is_empty(&self) -> bool {
            fs::read_dir(&self.0).expect("lists").next().is_none()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Leaves behind what a host does that is killed.
    fn die_at(path: &Path) {
        drop(UnixListener::bind(path).expect("binds"));
        fs::write(lock_path(path), "4711\n").expect("writes");
    }

    #[test]
    fn a_socket_is_for_its_owner_and_gone_at_the_end() {
        let dir = Scratch::new("owner");
        let path = dir.0.join("a.sock");
        let (listener, socket) = ControlSocket::bind(&path).expect("binds");
        for made in [&path, &lock_path(&path)] {
            assert_eq!(fs::metadata(made).expect("is there").mode() & 0o777, 0o600, "{made:?}");
        }
        let _client = UnixStream::connect(socket.path()).expect("connects");
        listener.accept().expect("accepts");
        drop((listener, socket));
        assert!(dir.is_empty());
    }

    #[test]
    fn a_live_host_is_left_alone_and_named() {
        let dir = Scratch::new("live");
        let path = dir.0.join("a.sock");
        let _live = ControlSocket::bind(&path).expect("binds");
        let error = ControlSocket::bind(&path).expect_err("is in use").to_string();
        assert!(error.contains(&format!("running host (pid {})", process::id())), "{error}");
        UnixStream::connect(&path).expect("still there");
    }

    #[test]
    fn what_a_dead_host_left_is_taken_over() {
        let dir = Scratch::new("dead");
        let path = dir.0.join("a.sock");
        die_at(&path);
        let (_listener, _socket) = ControlSocket::bind(&path).expect("takes over");
        UnixStream::connect(&path).expect("connects");
    }

    #[test]
    fn a_live_socket_without_a_lock_is_left_alone() {
        let dir = Scratch::new("other");
        let path = dir.0.join("a.sock");
        let _other = UnixListener::bind(&path).expect("binds");
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::InUse { .. })));
        UnixStream::connect(&path).expect("still there");
    }

    #[test]
    fn files_that_are_no_hosts_are_left_alone() {
        let dir = Scratch::new("files");
        for (socket, file) in [("notes", "notes"), ("Cargo", "Cargo.lock")] {
            let file = dir.0.join(file);
            fs::write(&file, "mine").expect("writes");
            let error = ControlSocket::bind(&dir.0.join(socket)).expect_err("is not ours");
            assert!(matches!(&error, SocketError::NotOurs { path } if *path == file), "{error}");
            assert_eq!(fs::read(&file).expect("reads"), b"mine");
        }
        assert!(!dir.0.join("notes.lock").exists());
        assert!(!dir.0.join("Cargo").exists());
    }

    #[test]
    fn of_hosts_that_race_for_one_path_one_has_it() {
        let dir = Scratch::new("race");
        let path = dir.0.join("a.sock");
        for round in 0..20 {
            if round % 2 == 0 {
                die_at(&path);
            }
            let start = Barrier::new(8);
            let bound: Vec<_> = thread::scope(|scope| {
                let racers: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            ControlSocket::bind(&path)
                        })
                    })
                    .collect();
                racers.into_iter().map(|racer| racer.join().expect("does not panic")).collect()
            });
            assert_eq!(bound.iter().filter(|bound| bound.is_ok()).count(), 1);
            assert!(
                bound.iter().flat_map(|bound| bound.as_ref().err()).all(|e| matches!(e, SocketError::InUse { .. }))
            );
            UnixStream::connect(&path).expect("the winner listens");
            drop(bound);
            assert!(dir.is_empty());
        }
    }

    #[test]
    fn a_successor_is_not_removed() {
        let dir = Scratch::new("successor");
        let path = dir.0.join("a.sock");
        let (listener, first) = ControlSocket::bind(&path).expect("binds");
        drop(listener);
        // Somebody tidied up.
        fs::remove_file(&path).and_then(|()| fs::remove_file(lock_path(&path))).expect("removes");
        let _second = ControlSocket::bind(&path).expect("binds");
        drop(first);
        UnixStream::connect(&path).expect("still there");
        assert!(lock_path(&path).exists());
    }

    #[test]
    fn a_path_that_is_too_long_or_nowhere_is_refused() {
        let long = env::temp_dir().join("x".repeat(120));
        assert!(matches!(ControlSocket::bind(&long), Err(SocketError::TooLong { .. })));
        let error = ControlSocket::bind(&env::temp_dir().join("astra-none/a.sock")).expect_err("is nowhere");
        assert!(matches!(error, SocketError::Make { .. }), "{error}");
    }

    #[test]
    fn running_hosts_are_found_and_dead_ones_swept() {
        let dir = Scratch::new("running");
        let live = dir.0.join(file_name("my app/ü", 7));
        assert!(live.ends_with("my-app---7.sock"), "{live:?}");
        let _live = ControlSocket::bind(&live).expect("binds");
        let dead = dir.0.join("dead-1.sock");
        die_at(&dead);
        assert_eq!(running_in(&dir.0), [live]);
        assert!(!dead.exists() && !lock_path(&dead).exists());
    }

    #[test]
    fn a_long_name_leaves_room_for_the_directory() {
        assert!(file_name(&"x".repeat(200), u32::MAX).len() <= 40);
    }
}
