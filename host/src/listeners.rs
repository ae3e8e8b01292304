//! The sockets that requests come in by: those of a host before this one, those that systemd or whoever embeds us has passed on, else the
//! configured addresses. Used once, at start-up.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
};

use astra_server::{ListeningSocket, Server};
use socket2::SockRef;

use crate::{
    certificates::Certificates,
    config::{HTTPS, ServerConfig, UNIX},
    host_error::HostError,
    unix_socket::{self, Obstacle, SocketFile, SocketFiles},
};

/// What the URL of an address begins with where TLS is not spoken.
const HTTP: &str = "http://";

/// Whoever may enter the directories above may connect, as with a port of the machine's; nginx and systemd do the same.
const MODE: u32 = 0o666;

/// Connections that may wait to be accepted; the kernel caps this itself (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What TLS is spoken with, where it is.
type Tls = Arc<rustls::ServerConfig>;

/// What a server listens on.
pub(crate) struct Listeners {
    pub(crate) server: Server,
    /// On what, as URLs.
    pub(crate) urls: Vec<String>,
    /// What it has made for that.
    pub(crate) files: SocketFiles,
}

/// Lets `server` listen on the sockets that were `inherited`, the files of some of them too, or `passed`, if there are any, else on what
/// `config` says.
///
/// # Errors
/// One of them cannot be listened on, or should speak TLS and there is no certificate.
pub(crate) fn open(
    server: Server,
    config: &ServerConfig,
    certificates: &Certificates,
    inherited: (Vec<ListeningSocket>, Vec<SocketFile>),
    passed: Vec<OwnedFd>,
) -> Result<Listeners, HostError> {
    let (sockets, files) = inherited;
    let passed = passed.into_iter().map(|fd| ListeningSocket { speaks_tls: speaks_tls(config, &fd), fd });
    let sockets: Vec<_> = sockets.into_iter().chain(passed).collect();
    let speaks_tls = config.speaks_tls() || sockets.iter().any(|socket| socket.speaks_tls);
    if !config.tls.is_empty() && !speaks_tls {
        log::warn!("no certificate is shown: no address begins with `{HTTPS}`");
    }
    let tls = (!config.tls.is_empty()).then(|| certificates.config()).transpose()?;
    if sockets.is_empty() {
        return bind(server, config, tls.as_ref());
    }
    let (server, urls) = listen(server, sockets, tls.as_ref())?;
    Ok(Listeners { server, urls, files: SocketFiles::inherited(files) })
}

/// On the configured addresses and paths.
fn bind(mut server: Server, config: &ServerConfig, tls: Option<&Tls>) -> Result<Listeners, HostError> {
    let (mut urls, mut files) = (Vec::new(), SocketFiles::default());
    for listen in config.addresses() {
        let failed = |source| HostError::Listen { address: listen.to_owned(), source };
        if let Some(path) = listen.strip_prefix(UNIX) {
            let (listener, file) = bind_unix(path).map_err(failed)?;
            files.add(file);
            urls.push(shown(&listener, HTTP));
            server = server.and_listen_unix(listener).map_err(failed)?;
            continue;
        }
        let (scheme, address, tls) = match (listen.strip_prefix(HTTPS), tls) {
            (None, _) => (HTTP, listen, None),
            (Some(address), Some(tls)) => (HTTPS, address, Some(tls)),
            (Some(_), None) => return Err(HostError::NoCertificate { address: listen.to_owned() }),
        };
        let before = server.local_addrs().len();
        let bound = match localhost(address) {
            Some(both) => bind_one(server, &both[..], tls),
            None => bind_one(server, address, tls),
        };
        server = bound.map_err(failed)?;
        urls.extend(server.local_addrs()[before..].iter().map(|address| format!("{scheme}{address}")));
    }
    Ok(Listeners { server, urls, files })
}

fn bind_unix(path: &str) -> io::Result<(UnixListener, SocketFile)> {
    let path = std::path::absolute(path)?;
    let bound = unix_socket::bind(&path, MODE, BACKLOG).map_err(|obstacle| match obstacle {
        Obstacle::InUse { .. } => io::Error::new(io::ErrorKind::AddrInUse, "a process listens there already"),
        Obstacle::NotASocket { path } => {
            let found = format!("`{}` is not the file of a socket, so it was left alone", path.display());
            io::Error::new(io::ErrorKind::AlreadyExists, found)
        }
        Obstacle::TooLong => io::Error::new(io::ErrorKind::InvalidFilename, "the path is too long for a socket"),
        Obstacle::System(error) => error,
    });
    let (listener, _lock) = bound?;
    Ok((listener, SocketFile::at(&path)?))
}

fn bind_one(server: Server, address: impl ToSocketAddrs, tls: Option<&Tls>) -> io::Result<Server> {
    match tls {
        Some(tls) => server.and_bind_tls(address, tls.clone()),
        None => server.and_bind(address),
    }
}

/// `localhost` is both families, whatever the machine's files say; the server passes over the one that does not exist.
fn localhost(address: &str) -> Option<[SocketAddr; 2]> {
    let port = address.strip_prefix("localhost:")?.parse().ok()?;
    Some([SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))])
}

/// On sockets that listen already.
fn listen(
    mut server: Server,
    sockets: Vec<ListeningSocket>,
    tls: Option<&Tls>,
) -> Result<(Server, Vec<String>), HostError> {
    let mut urls = Vec::new();
    for ListeningSocket { fd, speaks_tls } in sockets {
        let url = shown(&fd, if speaks_tls { HTTPS } else { HTTP });
        let listening = match (speaks_tls, tls) {
            (false, _) => server.and_listen(fd),
            (true, Some(tls)) => server.and_listen_tls(TcpListener::from(fd), tls.clone()),
            (true, None) => return Err(HostError::NoCertificate { address: url }),
        };
        server = listening.map_err(HostError::Socket)?;
        urls.push(url);
    }
    Ok((server, urls))
}

/// `http://127.0.0.1:8080`, `unix:/run/app.sock`.
fn shown(socket: &impl AsFd, scheme: &str) -> String {
    let Ok(address) = SockRef::from(socket).local_addr() else { return "unknown".to_owned() };
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => format!("{scheme}{address}"),
        (None, Some(path)) => format!("{UNIX}{}", path.display()),
        (None, None) => UNIX.to_owned(),
    }
}

/// Whether TLS is spoken on a socket that was passed on: `listen` has an address with the same port that says so.
fn speaks_tls(config: &ServerConfig, socket: &OwnedFd) -> bool {
    let Some(address) = SockRef::from(socket).local_addr().ok().and_then(|address| address.as_socket()) else {
        return false;
    };
    let port = format!(":{}", address.port());
    config.addresses().into_iter().any(|listen| listen.starts_with(HTTPS) && listen.ends_with(&port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_both_families() {
        let both = localhost("localhost:80").expect("is localhost");
        assert_eq!(both.map(|address| address.to_string()), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(localhost("localhost.example:80"), None);
    }
}
