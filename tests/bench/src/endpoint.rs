//! Where a client connects, and whether it speaks TLS there, on blocking sockets.

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    /// What TLS is spoken with, if it is.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection to an endpoint. Dropped, it is closed without a word (`close_notify`).
pub(crate) trait Stream: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

impl Endpoint {
    pub(crate) fn plain(addr: SocketAddr) -> Self {
        Self { addr, tls: None }
    }

    /// Connects, and ends the handshake; `patience` is for each reading and writing.
    pub(crate) fn connect(&self, patience: Duration) -> Result<Box<dyn Stream>> {
        let socket = self.connect_plain(patience)?;
        Ok(match &self.tls {
            Some(config) => Box::new(shake_hands(config, socket)?),
            None => Box::new(socket),
        })
    }

    /// The certificate that is shown to who connects now and does not resume a session; none in plain.
    pub(crate) fn certificate(&self, patience: Duration) -> Result<Option<CertificateDer<'static>>> {
        let Some(config) = &self.tls else { return Ok(None) };
        let stream = shake_hands(config, self.connect_plain(patience)?)?;
        Ok(stream.conn.peer_certificates().and_then(|shown| shown.first()).cloned())
    }

    /// Connects without a handshake.
    pub(crate) fn connect_plain(&self, patience: Duration) -> Result<TcpStream> {
        let socket = TcpStream::connect(self.addr)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(socket)
    }
}

pub(crate) fn shake_hands(config: &Arc<ClientConfig>, mut socket: TcpStream) -> Result<TlsStream> {
    let mut session = session(config)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

pub(crate) fn session(config: &Arc<ClientConfig>) -> Result<ClientConnection> {
    ClientConnection::new(Arc::clone(config), server_name()).map_err(std::io::Error::other)
}

/// What servers under test have certificates for.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}
