//! Operating a running host from outside: HTTP and JSON over a Unix socket that only its owner can reach, or over TCP with a token, which
//! only `/healthz` and `/readyz` do without.
//!
//! | file | owns |
//! |---|---|
//! | `socket` | the socket's file: made, found, told live from dead |
//! | `token` | who may come in over TCP |
//! | `operate` | what can be asked of a host: the seam between this room and [`Operator`] |
//! | `route`, `server` | what can be asked for, and how it is answered, on a server of its own that works while the other is busy |
//! | `upload`, `event_stream` | a module on its way in, events on their way out |
//! | `client` | the command line's end |

pub mod socket;
pub mod token;

pub(crate) mod client;
pub(crate) mod server;

mod event_stream;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod metrics;
mod operate;
mod route;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    io,
    net::SocketAddr,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

use astra_server::{Handle, Server, Sockets};

use self::{
    server::{Access, Settings},
    socket::{ControlSocket, LockShare, SocketError},
    token::{Token, TokenError},
};
use crate::{config::ControlConfig, guest::Engine, operator::Operator};

/// How long answers to operators may take to go out when the host ends.
const DRAIN: Duration = Duration::from_secs(1);

/// Why a host cannot be operated as it was configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The socket is another host's, or cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The token for TCP cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address for TCP cannot be listened on.
    #[error("cannot listen on `{address}` for operators")]
    Listen {
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
}

/// What operators will reach a host by: taken before anything else is done, answered when the host is there.
pub(crate) struct Reserved {
    unix: Option<(UnixListener, ControlSocket)>,
    tcp: Option<(Server, Token)>,
}

/// What operators reach a host by. The socket goes last: who waits for that knows that the host is gone.
pub(crate) struct Control {
    servers: Vec<Handle>,
    tcp: Vec<SocketAddr>,
    socket: Option<ControlSocket>,
}

/// What a host before this one has passed on.
#[derive(Default)]
pub(crate) struct Inherited {
    /// The socket, which listens, and its lock.
    pub(crate) unix: Option<(OwnedFd, OwnedFd)>,
    pub(crate) tcp: Vec<OwnedFd>,
}

/// What can be passed on to a host after this one.
pub(crate) struct ControlShare {
    /// Of the control socket, if there is one.
    pub(crate) path: Option<PathBuf>,
    unix: Option<(Sockets, LockShare)>,
    tcp: Option<Sockets>,
}

impl ControlShare {
    /// The same once more.
    ///
    /// # Errors
    /// There are no more file descriptors to be had.
    pub(crate) fn try_clone(&self) -> io::Result<Inherited> {
        let unix = match &self.unix {
            Some((sockets, lock)) => {
                sockets.try_clone()?.pop().map(|socket| Ok::<_, io::Error>((socket.fd, lock.try_clone()?)))
            }
            None => None,
        };
        let tcp = self.tcp.as_ref().map_or_else(|| Ok(Vec::new()), Sockets::try_clone)?;
        Ok(Inherited { unix: unix.transpose()?, tcp: tcp.into_iter().map(|socket| socket.fd).collect() })
    }

    /// The lock of the socket's path once more.
    pub(crate) fn lock(&self) -> Option<OwnedFd> {
        self.unix.as_ref()?.1.try_clone().ok()
    }

    /// What was inherited is this process's from now on.
    pub(crate) fn settle(&self) {
        if let Some((_, lock)) = &self.unix {
            lock.settle();
        }
    }

    /// It is another process's from now on. What is being answered still is.
    pub(crate) fn leave(&self) {
        if let Some((sockets, lock)) = &self.unix {
            sockets.close();
            lock.leave();
        }
        if let Some(sockets) = &self.tcp {
            sockets.close();
        }
    }
}

impl Reserved {
    /// # Errors
    /// One of them cannot be had.
    pub(crate) fn new(config: &ControlConfig, inherited: Inherited) -> Result<Self, ControlError> {
        let unix = match (config.socket.as_deref(), inherited.unix) {
            (Some(path), Some((socket, lock))) => Some(ControlSocket::inherit(path, socket, lock)),
            (Some(path), None) => Some(ControlSocket::bind(path)?),
            (None, _) => None,
        };
        let tcp = match &config.tcp {
            None => None,
            Some((address, file)) => {
                let token = Token::read(file)?;
                let listen = |source| ControlError::Listen { address: address.clone(), source };
                let bound = if inherited.tcp.is_empty() {
                    Server::try_bind(address)
                } else {
                    inherited.tcp.into_iter().try_fold(Server::default(), Server::and_listen)
                };
                Some((bound.map_err(listen)?, token))
            }
        };
        Ok(Self { unix, tcp })
    }

    /// Whether there is nothing that operators could reach.
    pub(crate) fn is_empty(&self) -> bool {
        self.unix.is_none() && self.tcp.is_none()
    }

    /// Answers operators from here on; modules that they send are kept in `uploads` meanwhile. Also says what can be passed on.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(crate) fn open(
        self,
        operator: &Operator,
        engine: &Engine,
        max_module: u64,
        uploads: &Path,
    ) -> io::Result<(Control, ControlShare)> {
        let settings = || {
            let runtime = engine.runtime().clone();
            Settings {
                worker_stack: engine.worker_stack(),
                around_worker: Box::new(move |work| {
                    let _entered = runtime.enter();
                    work();
                }),
                max_module,
                uploads: uploads.to_owned(),
            }
        };
        let mut share = ControlShare { path: None, unix: None, tcp: None };
        let mut control = Control { servers: Vec::new(), tcp: Vec::new(), socket: None };
        if let Some((listener, socket)) = self.unix {
            let bound = Server::default().and_listen_unix(listener)?;
            let server = server::start(bound, Access::Owner, operator.clone(), settings())?;
            share.path = Some(socket.path().to_owned());
            share.unix = Some((server.sockets(), socket.lock()));
            control.socket = Some(socket);
            control.servers.push(server);
        }
        if let Some((bound, token)) = self.tcp {
            control.tcp = bound.local_addrs();
            let server = server::start(bound, Access::Bearer(token), operator.clone(), settings())?;
            share.tcp = Some(server.sockets());
            control.servers.push(server);
        }
        Ok((control, share))
    }
}

impl Control {
    /// The socket's path.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.socket.as_ref().map(ControlSocket::path)
    }

    /// Where it listens on TCP.
    pub(crate) fn local_addrs(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// Lets the last answers go out.
    pub(crate) fn shutdown(self) {
        for server in self.servers {
            server.shutdown(DRAIN);
        }
    }
}

/// Where modules are kept while they are swapped in if there is no state directory: in a temporary one of this user's.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn uploads() -> Result<PathBuf, String> {
    let path = std::env::temp_dir().join(format!("astra-host-{}", rustix::process::geteuid().as_raw()));
    crate::private_dir::prepare(&path)?;
    Ok(path)
}
