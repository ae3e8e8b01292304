//! What systemd and a host tell each other: the sockets that it was started with (sd_listen_fds(3)), and how it is doing
//! (sd_notify(3)). Where there is no systemd, nobody is told anything.

use std::{
    env, io,
    os::{
        fd::OwnedFd,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};

/// Takes the sockets that the process was started with, and removes from the environment what says so. To be called while there is
/// only one thread.
///
/// # Errors
/// One of them is no stream socket.
pub(super) fn sockets() -> anyhow::Result<Vec<OwnedFd>> {
    let mut passed = ListenFd::from_env();
    (0..passed.len()).map(|index| take(&mut passed, index)).collect()
}

fn take(passed: &mut ListenFd, index: usize) -> anyhow::Result<OwnedFd> {
    if let Ok(Some(unix)) = passed.take_unix_listener(index) {
        return Ok(unix.into());
    }
    let tcp = passed.take_tcp_listener(index).ok().flatten();
    let tcp = tcp.with_context(|| {
        format!("of the sockets that were passed, number {} is no stream socket: use `ListenStream=`", index + 1)
    })?;
    Ok(tcp.into())
}

/// Tells systemd, or whoever has set `NOTIFY_SOCKET`.
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The last word was said. A reload that is given up then says nothing more.
    is_over: Mutex<bool>,
}

impl Notify {
    pub(super) fn from_env() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let open = || Ok((UnixDatagram::unbound()?, address(name.as_encoded_bytes())?));
            let unusable = |error: &io::Error| log::warn!("`NOTIFY_SOCKET` cannot be used: {error}");
            open().inspect_err(unusable).ok()
        });
        Self { socket, is_over: Mutex::new(false) }
    }

    /// It serves.
    pub(super) fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()), false);
    }

    /// The configuration is read again; `ready` follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000), false);
    }

    /// Another process serves from now on. This one says nothing more.
    pub(super) fn main_pid(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"), true);
    }

    /// It ends, once what runs has finished, and says nothing more.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1", true);
    }

    fn send(&self, text: &str, is_last: bool) {
        let Some((socket, address)) = &self.socket else { return };
        let mut is_over = self.is_over.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return;
        }
        *is_over = is_last;
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            log::warn!("systemd cannot be told `{}`: {error}", text.lines().next().unwrap_or_default());
        }
    }
}

#[cfg(target_os = "linux")]
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::{linux::net::SocketAddrExt as _, unix::ffi::OsStrExt as _};
    match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
    }
}

#[cfg(not(target_os = "linux"))]
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::unix::ffi::OsStrExt as _;
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))
}
