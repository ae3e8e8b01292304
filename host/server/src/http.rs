//! The types a service speaks: the `http` crate's, with our [`Body`].

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use crate::body::Body;

/// An HTTP request.
pub type Request = http::Request<Body>;

/// An HTTP response.
pub type Response = http::Response<Body>;

/// Builds a [`Response`] step by step.
///
/// ```
/// use astra_server::{Body, ResponseBuilder};
///
/// let response = ResponseBuilder::new()
///     .status(201)
///     .header("X-Custom-Foo", "Bar")
///     .body(Body::new("Hello world!"))
///     .unwrap();
/// assert_eq!(response.status(), 201);
/// ```
pub type ResponseBuilder = http::response::Builder;

/// The connection that a request came in on.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    /// Set by the end of the handshake, before any request.
    pub(crate) tls: Option<Arc<OnceLock<TlsInfo>>>,
}

/// What was agreed in a connection's TLS handshake.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    pub(crate) server_name: Option<String>,
    pub(crate) protocol: Option<Vec<u8>>,
}

impl TlsInfo {
    /// The name that the client asked for (SNI, RFC 6066 section 3); none if it connected to an address.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The protocol that was agreed (ALPN, RFC 7301): `h2` or `http/1.1`; none if the client named none.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }
}

impl ConnectionInfo {
    /// The client's address; none over a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Our address that the client connected to; none over a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// What its TLS handshake agreed; none if it came in plain.
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()?.get()
    }
}

/// Answers requests, each on a worker thread; it may block as it likes.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request, info: ConnectionInfo) -> Response;
}

impl<F> Service for F
where
    F: Fn(Request, ConnectionInfo) -> Response + Send + Sync + 'static,
{
    fn call(&self, request: Request, info: ConnectionInfo) -> Response {
        self(request, info)
    }
}

impl<S: Service> Service for Arc<S> {
    fn call(&self, request: Request, info: ConnectionInfo) -> Response {
        (**self).call(request, info)
    }
}
