//! The sockets that requests come in by: those of a host before this one, those that systemd or whoever embeds us has passed on, else the
//! configured addresses. Used once, at start-up.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
    os::fd::OwnedFd,
    sync::Arc,
};

use astra_server::{ListeningSocket, Server};
use socket2::SockRef;

use crate::{
    certificates::Certificates,
    config::{HTTPS, ServerConfig},
    host_error::HostError,
};

/// What the URL of an address begins with where TLS is not spoken.
const HTTP: &str = "http://";

/// What TLS is spoken with, where it is.
type Tls = Arc<rustls::ServerConfig>;

/// Lets `server` listen on the sockets that were `inherited` or `passed`, if there are any, else on the addresses that `config` has. Also
/// says on what, as URLs.
///
/// # Errors
/// One of them cannot be listened on, or should speak TLS and there is no certificate.
pub(crate) fn open(
    server: Server,
    config: &ServerConfig,
    certificates: &Certificates,
    inherited: Vec<ListeningSocket>,
    passed: Vec<OwnedFd>,
) -> Result<(Server, Vec<String>), HostError> {
    let passed = passed.into_iter().map(|fd| ListeningSocket { speaks_tls: speaks_tls(config, &fd), fd });
    let sockets: Vec<_> = inherited.into_iter().chain(passed).collect();
    let speaks_tls = config.speaks_tls() || sockets.iter().any(|socket| socket.speaks_tls);
    if !config.tls.is_empty() && !speaks_tls {
        log::warn!("no certificate is shown: no address begins with `{HTTPS}`");
    }
    let tls = (!config.tls.is_empty()).then(|| certificates.config()).transpose()?;
    if sockets.is_empty() { bind(server, config, tls.as_ref()) } else { listen(server, sockets, tls.as_ref()) }
}

/// On the configured addresses.
fn bind(mut server: Server, config: &ServerConfig, tls: Option<&Tls>) -> Result<(Server, Vec<String>), HostError> {
    let mut urls = Vec::new();
    for listen in config.addresses() {
        let (scheme, address, tls) = match (listen.strip_prefix(HTTPS), tls) {
            (None, _) => (HTTP, listen, None),
            (Some(address), Some(tls)) => (HTTPS, address, Some(tls)),
            (Some(_), None) => return Err(HostError::NoCertificate { address: listen.to_owned() }),
        };
        let bound = match localhost(address) {
            Some(both) => bind_one(server, &both[..], tls),
            None => bind_one(server, address, tls),
        };
        server = bound.map_err(|source| HostError::Listen { address: listen.to_owned(), source })?;
        let new = &server.local_addrs()[urls.len()..];
        urls.extend(new.iter().map(|address| format!("{scheme}{address}")));
    }
    Ok((server, urls))
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
fn shown(socket: &OwnedFd, scheme: &str) -> String {
    let Ok(address) = SockRef::from(socket).local_addr() else { return "unknown".to_owned() };
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => format!("{scheme}{address}"),
        (None, Some(path)) => format!("unix:{}", path.display()),
        (None, None) => "unix:".to_owned(),
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
