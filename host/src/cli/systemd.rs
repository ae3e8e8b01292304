//! What systemd and a host tell each other: the sockets that it was started with (sd_listen_fds(3)), and how it is doing
//! (sd_notify(3)). Where there is no systemd, nobody is told anything.

use std::{
    env, io,
    os::{
        fd::OwnedFd,
        unix::net::{SocketAddr, UnixDatagram},
    },
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
pub(super) struct Notify(Option<(UnixDatagram, SocketAddr)>);

impl Notify {
    pub(super) fn from_env() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self(None) };
        let open = || Ok((UnixDatagram::unbound()?, address(name.as_encoded_bytes())?));
        let opened: io::Result<_> = open();
        if let Err(error) = &opened {
            log::warn!("`NOTIFY_SOCKET` cannot be used: {error}");
        }
        Self(opened.ok())
    }

    /// It serves.
    pub(super) fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// The configuration is read again; `ready` follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// Another process serves from now on.
    pub(super) fn main_pid(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
    }

    /// It ends, once what runs has finished.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.0 else { return };
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
