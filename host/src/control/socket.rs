//! The control socket's file: only its owner can reach it, one host has it, and a dead host's is told from a live one's.
//!
//! A host holds a lock on `PATH.lock` as long as it lives. Used at start-up and shutdown, and by the command line to find hosts. Nothing is
//! ever removed here that a host did not make.

use std::{
    env, fs, io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process,
};

pub(crate) use crate::unix_socket::{LockShare, lock_path};
use crate::{
    private_dir,
    unix_socket::{self, Lock, Obstacle},
};

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
        let (listener, lock) = unix_socket::bind(path, 0o600, BACKLOG).map_err(|obstacle| match obstacle {
            Obstacle::InUse { pid } => {
                let holder = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
                SocketError::InUse { path: path.to_owned(), holder }
            }
            Obstacle::NotASocket { path } => SocketError::NotOurs { path },
            Obstacle::TooLong => SocketError::TooLong { path: path.to_owned() },
            Obstacle::System(source) => SocketError::Make { path: path.to_owned(), source },
        })?;
        Ok((listener, Self { path: path.to_owned(), lock }))
    }

    /// Shares a socket that listens at `path`, and the lock of that path, with the host that has passed them on; until
    /// [`LockShare::settle`] they are still that one's.
    pub(crate) fn inherit(path: &Path, socket: OwnedFd, lock: OwnedFd) -> (UnixListener, Self) {
        (socket.into(), Self { path: path.to_owned(), lock: Lock::inherit(path, lock) })
    }

    /// The lock, for whoever passes it on to another process.
    pub(crate) fn lock(&self) -> LockShare {
        self.lock.share()
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
            unix_socket::remove(&self.path);
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
                if unix_socket::fits(&path) {
                    return Ok(path);
                }
                reason = format!("`{}` is too long for a socket", path.display());
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
    if unix_socket::is_answered(path) {
        return true;
    }
    // A host that is just starting has the lock already.
    if let Ok(_lock) = Lock::take(path) {
        unix_socket::remove(path);
    }
    false
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::MetadataExt as _, net::UnixStream},
        sync::Barrier,
        thread,
    };

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
