//! TLS, by rustls, between a connection's socket and hyper; and how listeners come by it. It runs where its connection runs and
//! waits for nothing: bytes go through rustls when the connection is polled, and what is pending is known here.
//!
//! Readiness is the socket's. `Pending` to a reader means that rustls has neither plaintext nor unread records left and that the
//! socket said `WouldBlock` (or that this run has read enough, and another follows); to a writer, that the socket took no more.
//! So an edge of the socket is all that a connection ever has to be told.

use std::io::{self, BufRead as _, IoSlice, Write as _};
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, ready};
use std::time::Duration;

use http::StatusCode;
use rustls::{ServerConfig, ServerConnection};

use crate::http::{ConnectionInfo, TlsInfo};
use crate::link::{Link, last_words};
use crate::listener;
use crate::reactor::SHORT_READ;
use crate::server::{Protocols, Server};
use crate::socket::Listening;

/// TLS on listeners.
impl Server {
    /// Binds to one more address, and speaks TLS there: HTTP/2 and HTTP/1.1, as the client likes (ALPN). `config` is shared by all
    /// connections; what its resolver answers may change at any time. It decides on session tickets too, without which only the
    /// last 256 sessions can be resumed.
    ///
    /// If it names no protocols of its own (`alpn_protocols`), those that this server speaks are offered. A client that names none
    /// is understood by its first bytes, as without TLS.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use astra_server::{Body, Response, Server};
    /// use rustls::ServerConfig;
    /// use rustls::crypto::ring;
    /// use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let chain = CertificateDer::pem_file_iter("cert.pem")?.collect::<Result<Vec<_>, _>>()?;
    /// let key = PrivateKeyDer::from_pem_file("key.pem")?;
    /// let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
    ///     .with_safe_default_protocol_versions()?
    ///     .with_no_client_auth()
    ///     .with_single_cert(chain, key)?;
    /// config.ticketer = ring::Ticketer::new()?;
    /// Server::bind("0.0.0.0:80")
    ///     .and_bind_tls("0.0.0.0:443", config)?
    ///     .serve(|_req, _info| Response::new(Body::new("Hello World!")))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`try_bind`](Self::try_bind).
    pub fn and_bind_tls(self, addr: impl ToSocketAddrs, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        let config = config.into();
        let listen = |server: Self, listener| server.and_listen_tls(listener, config.clone());
        listener::bind(addr)?.into_iter().try_fold(self, listen)
    }

    /// Speaks TLS on one more TCP socket, which is bound already; else as [`and_bind_tls`](Self::and_bind_tls).
    ///
    /// # Errors
    ///
    /// If it cannot be made non-blocking.
    pub fn and_listen_tls(mut self, listener: TcpListener, config: impl Into<Arc<ServerConfig>>) -> io::Result<Self> {
        self.listeners.push((Listening::tcp(listener)?, Some(Config(config.into()))));
        Ok(self)
    }

    /// How long a TLS handshake may take; then the connection is closed. Default 10 s.
    #[must_use]
    pub fn tls_handshake_timeout(mut self, time: Duration) -> Self {
        self.options.limits.handshake_timeout = time;
        self
    }
}

/// What the connections of one listener speak TLS with.
pub(crate) struct Config(Arc<ServerConfig>);

impl Config {
    /// Names the protocols that the server speaks, unless some are named. Early data could be anybody's who has heard it once, and
    /// is not taken.
    pub(crate) fn offering(mut self, protocols: Protocols) -> Self {
        Arc::make_mut(&mut self.0).max_early_data_size = 0;
        if self.0.alpn_protocols.is_empty() {
            let names = [(protocols.http2, "h2"), (protocols.http1, "http/1.1")];
            let spoken = names.into_iter().filter(|(spoken, _)| *spoken).map(|(_, name)| name.into());
            Arc::make_mut(&mut self.0).alpn_protocols = spoken.collect();
        }
        self
    }

    /// For one connection, whose `info` will tell what was agreed.
    pub(crate) fn session(&self, info: &mut ConnectionInfo) -> io::Result<Session> {
        let tls = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        let agreed = Arc::<OnceLock<_>>::default();
        info.tls = Some(agreed.clone());
        Ok(Session { tls, agreed, begun: false, unread: Vec::new(), unsent: 0, broken: None })
    }
}

/// One connection's TLS.
pub(crate) struct Session {
    tls: ServerConnection,
    agreed: Arc<OnceLock<TlsInfo>>,
    /// The client has said something.
    begun: bool,
    /// Read from the socket while rustls had plaintext that nobody had taken: at most one read.
    unread: Vec<u8>,
    /// Bytes of hyper's in records that the socket has not taken yet.
    unsent: usize,
    /// What the client has sent is not TLS as it should be; no more is read.
    broken: Option<rustls::Error>,
}

impl Session {
    /// Ready when requests can be read.
    pub(crate) fn poll_handshake(&mut self, link: &Link) -> Poll<io::Result<()>> {
        while self.tls.is_handshaking() {
            ready!(self.poll_send(link))?;
            if ready!(self.poll_fill(link, SHORT_READ))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        // Cannot be set already: a handshake ends once.
        let _ = self.agreed.set(TlsInfo {
            server_name: self.tls.server_name().map(str::to_owned),
            protocol: self.tls.alpn_protocol().map(<[u8]>::to_vec),
        });
        Poll::Ready(Ok(()))
    }

    /// Passes plaintext on, at most `max` bytes of one record. 0: the client has said that it has sent all, or just ended.
    ///
    /// A client that ends without saying so (`close_notify`) is taken at its word, since HTTP tells itself whether a request is
    /// whole (RFC 9112 section 9.8).
    pub(crate) fn poll_read(&mut self, link: &Link, max: usize, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        loop {
            let mut reader = self.tls.reader();
            match reader.fill_buf() {
                Ok(bytes) => {
                    let n = bytes.len().min(max);
                    take(&bytes[..n]);
                    reader.consume(n);
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            // What rustls has to say itself, as session tickets: else with the next answer.
            if let Poll::Ready(Err(error)) = self.poll_send(link) {
                return Poll::Ready(Err(error));
            }
            if ready!(self.poll_fill(link, max))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
    }

    /// Gives rustls more of what the client has sent, about as much as `max`. 0: there is no more.
    fn poll_fill(&mut self, link: &Link, max: usize) -> Poll<io::Result<usize>> {
        if let Some(error) = &self.broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, error.clone())));
        }
        if !self.tls.wants_read() {
            return Poll::Ready(Ok(0));
        }
        let mut fed = Ok(());
        let n = if self.unread.is_empty() {
            if !link.take_call() {
                return Poll::Pending;
            }
            ready!(link.poll_read_plain(max.max(SHORT_READ), |bytes| fed = self.feed(link, bytes)))?
        } else {
            let unread = std::mem::take(&mut self.unread);
            fed = self.feed(link, &unread);
            unread.len()
        };
        if let Err(error) = fed {
            // Said when all that came before it has been read.
            self.broken = Some(error);
            // The alert, if there is room for it.
            let _ = self.poll_send(link);
        }
        Poll::Ready(Ok(n))
    }

    fn feed(&mut self, link: &Link, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        if !self.begun && bytes.first().is_some_and(u8::is_ascii_uppercase) {
            link.write_plain(&last_words(StatusCode::BAD_REQUEST, "this port speaks HTTPS"));
            return Err(rustls::Error::General("the client speaks plain HTTP".to_owned()));
        }
        self.begun = true;
        while !bytes.is_empty() && self.tls.wants_read() {
            self.tls.read_tls(&mut bytes).map_err(|error| rustls::Error::General(error.to_string()))?;
            self.tls.process_new_packets()?;
        }
        self.unread.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes of `slices` what fits into records of 64 KiB together, once all that was taken before has gone out.
    pub(crate) fn poll_write(&mut self, link: &Link, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(link))?;
        let n = self.tls.writer().write_vectored(slices)?;
        self.unsent += n;
        match self.poll_send(link) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(n)),
        }
    }

    /// Ready when all records have gone out.
    pub(crate) fn poll_send(&mut self, link: &Link) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let sent = ready!(link.poll_write_with(|mut socket| self.tls.write_tls(&mut socket)))?;
            // A little early, by what the records are longer than what is in them.
            let sent = sent.min(self.unsent);
            self.unsent -= sent;
            link.wrote(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Says `text`, as far as it can be said without waiting.
    pub(crate) fn write_now(&mut self, link: &Link, text: &[u8]) {
        let _ = self.tls.writer().write_all(text);
        let _ = self.poll_send(link);
    }

    /// Says that this was all, as far as it can be said without waiting.
    pub(crate) fn say_goodbye(&mut self, link: &Link) {
        if self.broken.is_none() {
            self.tls.send_close_notify();
        }
        let _ = self.poll_send(link);
    }
}
