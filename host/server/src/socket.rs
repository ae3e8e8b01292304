//! TCP and Unix sockets as one: what is listened on, and what a connection reads and writes. What one of the two does not have
//! (addresses, `TCP_NODELAY`, resets) is known here only. None of them blocks; readiness is the business of who calls.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use socket2::{SockRef, TcpKeepalive};

use crate::http::ConnectionInfo;

/// What the system may hold of a connection's answers beyond what the client's window takes, in bytes. Without it that is up to 4 MiB
/// on Linux, of which a third must be free before there is room again: a client that reads steadily would look as if it took nothing.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 * 1024;

/// When a peer of which nothing is heard is asked for a sign of life, how often, and how many times. One that has closed its connection, and
/// not just its side of it, is not there any more to give one (Linux: a minute after it has); a handler that writes nothing would never know.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(45)).with_interval(Duration::from_secs(15)).with_retries(4);

/// Bytes of an answer, head and body, that are copied rather than passed to the system in parts.
const GATHERED: usize = 512;

/// A socket that accepts others.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The socket of a connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listening {
    /// Makes it non-blocking.
    pub(crate) fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        // What it accepts has both from there.
        if let Err(error) = SockRef::from(&listener).set_tcp_keepalive(&KEEPALIVE) {
            log::debug!("peers that are gone cannot be told from silent ones: {error}");
        }
        // Not every kernel knows it (gVisor's does not).
        #[cfg(target_os = "linux")]
        if let Err(error) = SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT) {
            log::debug!("what is unsent of a connection cannot be bounded: {error}");
        }
        Ok(Self::Tcp(TcpListener::from_std(listener)))
    }

    /// Makes it non-blocking.
    pub(crate) fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)))
    }

    /// The next connection. One over TCP has a peer, even if that has gone already: without one it is over a Unix socket.
    pub(crate) fn accept(&self) -> io::Result<(Socket, ConnectionInfo)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                let info = ConnectionInfo { peer: Some(peer), local: stream.local_addr().ok(), tls: None };
                Ok((Socket::Tcp(stream), info))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), ConnectionInfo { peer: None, local: None, tls: None }))
            }
        }
    }

    /// None for a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<io::Result<SocketAddr>> {
        match self {
            Self::Tcp(listener) => Some(listener.local_addr()),
            Self::Unix(_) => None,
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Socket {
    /// Small writes are sent at once; over a Unix socket they always are.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Whether a read that did not fill its buffer has taken all there was, so that more comes with an edge. A Unix socket also
    /// ends a read where the client has sent a file descriptor along (which the read closes) or an urgent byte.
    pub(crate) fn is_drained_by_short_reads(&self) -> bool {
        cfg!(target_os = "linux") && matches!(self, Self::Tcp(_))
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        }
    }

    /// What is short is gathered first: for most answers that costs less than the kernel's care for a vector (0.25 of 3.7 µs).
    pub(crate) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if length <= GATHERED {
            let mut gathered = [0; GATHERED];
            let mut rest = &mut gathered[..];
            for slice in slices {
                // There is room for all of it.
                rest.write_all(slice)?;
            }
            return self.write(&gathered[..length]);
        }
        match self {
            Self::Tcp(stream) => (&*stream).write_vectored(slices),
            Self::Unix(stream) => (&*stream).write_vectored(slices),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        // It may be gone already, which is as good.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }

    /// Ends the connection so that the client does not take what it got for all there is: over TCP it gets a reset, once the
    /// socket is closed. Unix sockets have none, so there the client reads the end of the stream as ever: an answer of HTTP/1.0
    /// without a length that is cut looks whole.
    pub(crate) fn reset(&self) {
        match self {
            Self::Tcp(stream) => {
                // It may be gone already, which is as good.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Self::Unix(_) => self.shutdown(Shutdown::Both),
        }
    }
}

/// For rustls, which writes its records itself.
impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Socket::write(self, bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Socket::write_vectored(self, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
