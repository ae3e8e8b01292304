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
mod operate;
mod route;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    io,
    net::SocketAddr,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    time::Duration,
};

use astra_server::{Handle, Server};

use self::{
    server::{Access, Settings},
    socket::{ControlSocket, SocketError},
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

impl Reserved {
    /// # Errors
    /// One of them cannot be had.
    pub(crate) fn new(config: &ControlConfig) -> Result<Self, ControlError> {
        let unix = config.socket.as_deref().map(ControlSocket::bind).transpose()?;
        let tcp = match &config.tcp {
            None => None,
            Some((address, file)) => {
                let token = Token::read(file)?;
                let listen = |source| ControlError::Listen { address: address.clone(), source };
                Some((Server::try_bind(address).map_err(listen)?, token))
            }
        };
        Ok(Self { unix, tcp })
    }

    /// Whether there is nothing that operators could reach.
    pub(crate) fn is_empty(&self) -> bool {
        self.unix.is_none() && self.tcp.is_none()
    }

    /// Answers operators from here on; modules that they send are kept in `uploads` meanwhile.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(crate) fn open(
        self,
        operator: &Operator,
        engine: &Engine,
        max_module: u64,
        uploads: &Path,
    ) -> io::Result<Control> {
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
        let mut control = Control { servers: Vec::new(), tcp: Vec::new(), socket: None };
        if let Some((listener, socket)) = self.unix {
            control.socket = Some(socket);
            let bound = Server::default().and_listen_unix(listener)?;
            control.servers.push(server::start(bound, Access::Owner, operator.clone(), settings())?);
        }
        if let Some((bound, token)) = self.tcp {
            control.tcp = bound.local_addrs();
            control.servers.push(server::start(bound, Access::Bearer(token), operator.clone(), settings())?);
        }
        Ok(control)
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
