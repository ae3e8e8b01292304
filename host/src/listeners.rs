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
    let passed = passed.into_iter().map(|fd| Ok(ListeningSocket { speaks_tls: speaks_tls(config, &fd)?, fd }));
    let sockets = sockets.into_iter().map(Ok).chain(passed).collect::<Result<Vec<_>, HostError>>()?;
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

/// Whether `config` still says of sockets that were passed on, to a host before this one, what is spoken on them.
///
/// # Errors
/// It says otherwise of one, or nothing that could be done.
pub(crate) fn check_inherited(config: &ServerConfig, sockets: &[ListeningSocket]) -> Result<(), HostError> {
    for ListeningSocket { fd, speaks_tls: spoken } in sockets {
        let url = |speaks_tls| shown(fd, if speaks_tls { HTTPS } else { HTTP });
        if speaks_tls(config, fd)? != *spoken {
            let change = format!("`{}`, which was passed on, would be `{}`", url(*spoken), url(!spoken));
            return Err(HostError::Moved { changes: vec![change] });
        }
    }
    Ok(())
}

/// Whether TLS is spoken on a socket that was passed on. `listen` says so: its entry with the same address or path, else with the same port,
/// else all of its addresses. A socket is never served in plain by chance.
///
/// # Errors
/// They do not agree, or TLS is wanted and the socket is a Unix one that `listen` does not have.
fn speaks_tls(config: &ServerConfig, socket: &OwnedFd) -> Result<bool, HostError> {
    let addresses = config.addresses();
    if !config.speaks_tls() {
        return Ok(false);
    }
    let name = shown(socket, "");
    let refused = |reason: String| Err(HostError::Passed { socket: name.clone(), reason });
    let bare = |address: &str| address.strip_prefix(HTTPS).unwrap_or(address).to_owned();
    let same: Vec<_> = addresses.iter().filter(|address| bare(address) == name).collect();
    let Some(address) = SockRef::from(socket).local_addr().ok().and_then(|address| address.as_socket()) else {
        if same.is_empty() {
            let reason = format!(
                "`listen` asks for TLS, which is not spoken on Unix sockets; add `{name}` to it to serve plain HTTP there"
            );
            return refused(reason);
        }
        return Ok(false);
    };
    let port = format!(":{}", address.port());
    let tcp = || addresses.iter().filter(|address| !address.starts_with(UNIX));
    let same_port = tcp().filter(|address| address.ends_with(&port)).collect();
    let said =
        [same, same_port, tcp().collect()].into_iter().find(|said: &Vec<_>| !said.is_empty()).unwrap_or_default();
    let with_tls = said.iter().filter(|address| address.starts_with(HTTPS)).count();
    if with_tls > 0 && with_tls < said.len() {
        let reason =
            format!("`listen` has addresses with TLS and without; add `http://{name}` or `{HTTPS}{name}` to it");
        return refused(reason);
    }
    Ok(with_tls > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_socket_that_was_passed_tls_is_spoken_as_listen_says_and_never_not_by_chance() {
        let tcp = OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let path = std::env::temp_dir().join(format!("astra-listeners-{}.sock", std::process::id()));
        let unix = OwnedFd::from(UnixListener::bind(&path).expect("binds"));
        std::fs::remove_file(&path).expect("ours");
        let address = shown(&tcp, "");
        let port = address.rsplit(':').next().expect("a port");
        let spoken = |socket, listen: &[&str]| {
            let listen = listen.iter().map(|&address| address.to_owned()).collect();
            let config = ServerConfig { listen, ..ServerConfig::default() };
            speaks_tls(&config, socket).map_err(|error| error.to_string())
        };
        for (listen, expected) in [
            (&["127.0.0.1:1"][..], false),
            (&["https://127.0.0.1:1"], true),
            (&["https://127.0.0.1:1", "https://[::1]:2", "unix:/a"], true),
            (&["https://127.0.0.1:1", &address], false),
            (&[&format!("https://{address}"), "127.0.0.1:1"], true),
            (&[&format!("https://0.0.0.0:{port}"), "127.0.0.1:1"], true),
            (&[&format!("https://0.0.0.0:{port}"), &address], false),
            (&["https://127.0.0.1:1", &format!("0.0.0.0:{port}")], false),
        ] {
            assert_eq!(spoken(&tcp, listen), Ok(expected), "{listen:?}");
        }
        for listen in [
            &["https://127.0.0.1:1", "127.0.0.1:2"][..],
            &[&format!("https://0.0.0.0:{port}"), &format!("127.0.0.2:{port}")],
        ] {
            let error = spoken(&tcp, listen).expect_err("it is not known");
            assert!(error.ends_with(&format!("add `http://{address}` or `https://{address}` to it")), "{error}");
        }
        let name = format!("unix:{}", path.display());
        assert_eq!(spoken(&unix, &["127.0.0.1:1"]), Ok(false));
        assert_eq!(spoken(&unix, &["https://127.0.0.1:1", &name]), Ok(false));
        let error = spoken(&unix, &["https://127.0.0.1:1", "unix:/other"]).expect_err("TLS is wanted");
        assert!(error.ends_with(&format!("add `{name}` to it to serve plain HTTP there")), "{error}");

        let mut config = ServerConfig::default();
        let inherited = [ListeningSocket { fd: tcp, speaks_tls: false }];
        assert!(check_inherited(&config, &inherited).is_ok());
        config.listen = vec!["https://127.0.0.1:1".to_owned()];
        let error = check_inherited(&config, &inherited).expect_err("it would speak TLS").to_string();
        assert!(
            error.contains(&format!("`http://{address}`, which was passed on, would be `https://{address}`")),
            "{error}"
        );
    }

    #[test]
    fn localhost_is_both_families() {
        let both = localhost("localhost:80").expect("is localhost");
        assert_eq!(both.map(|address| address.to_string()), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(localhost("localhost.example:80"), None);
    }
}
