//! One rule's requests: hyper's client with its pool of connections, HTTP/1.1 or what ALPN has agreed on.
//!
//! Connections are tasks of the server's workers, beside those of clients. A request's future is polled by the guest's worker once it is on a
//! connection, and what it waits for then comes straight from there.

use std::{
    fmt,
    future::poll_fn,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use astra_server::Executor;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{
    self,
    connect::{CaptureConnection, capture_connection},
};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{
    Permits,
    connector::Connector,
    error,
    stream::{Counted, Last, Trouble},
    tls,
};
use crate::{
    guest::{
        OutboundRule,
        denials::Denials,
        descriptors::Room,
        resolver::Resolver,
        watch::{self, WaitsFor},
    },
    hop_by_hop,
};

/// How long a connection may take, unless the guest says.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the response, and each piece of it, may take unless the guest says: as in wasmtime, since its deadlines are what counts.
const READ: Duration = Duration::from_secs(600);
/// Connections without a request are closed after that, or up to as long again.
const IDLE: Duration = Duration::from_secs(30);
/// Those that are kept for one origin; how many there are in all is bounded in `descriptors.rs`.
const MOST_IDLE: usize = 1024;
/// The most that a connection buffers, a response's head included.
const BUFFER: usize = 128 * 1024;
/// What a stream of HTTP/2 and all of a connection's may send that nobody has read yet.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

#[derive(Clone)]
struct Connections {
    client: legacy::Client<Counted<HttpsConnector<Connector>>, Outgoing>,
    last: Last,
}

/// What a rule's requests go through.
pub(super) struct Client {
    connector: Connector,
    /// None if the rule's files cannot be used.
    connections: Option<Connections>,
}

impl Client {
    /// `room` is where connections have their places.
    pub(super) fn new(
        rule: &OutboundRule,
        resolver: &Resolver,
        denials: &Arc<Denials>,
        room: &Room,
        executor: &Executor,
    ) -> Self {
        let connector = Connector {
            rule: Arc::new(rule.clone()),
            resolver: resolver.clone(),
            denials: Arc::clone(denials),
            executor: executor.clone(),
        };
        let tls = tls::config(rule).inspect_err(|error| {
            log::error!("handler `{}`: requests to `{rule}` will fail: {error}", denials.handler());
        });
        let connections = tls.ok().map(|tls| {
            let last = Last::default();
            let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
            let https = https.wrap_connector(connector.clone());
            let connector = Counted { connector: https, last: last.clone(), room: room.clone() };
            let client = legacy::Client::builder(executor.clone())
                .timer(executor.clone())
                .pool_timer(executor.clone())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MOST_IDLE)
                .http1_max_buf_size(BUFFER)
                .http2_initial_stream_window_size(WINDOWS.0)
                .http2_initial_connection_window_size(WINDOWS.1)
                .http2_max_header_list_size(BUFFER as u32)
                .build(connector);
            Connections { client, last }
        });
        Self { connector, connections }
    }

    pub(super) fn rule(&self) -> &OutboundRule {
        &self.connector.rule
    }

    /// Whether a host that may be an address, which the connector does not have resolved, may be connected to.
    ///
    /// # Errors
    /// It is one, and may not.
    pub(super) fn check_literal(&self, host: &str) -> Result<(), Error> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(address) => self.connector.only_allowed(host, vec![address]).map(drop),
            Err(_) => Ok(()),
        }
        .map_err(|_| Error::DestinationIpProhibited)
    }

    /// Starts a request to where the rule says.
    pub(super) fn send(&self, mut request: Request<WasiBody>, options: RequestOptions, permits: Permits) -> Sending {
        let connection = capture_connection(&mut request);
        let response: Responding = match self.connections.clone() {
            None => Box::pin(std::future::ready(Err(Error::ConfigurationError))),
            Some(connections) => {
                let executor = self.connector.executor.clone();
                let request = outgoing(request);
                Box::pin(exchange(executor, connections, request, connection.clone(), options, permits))
            }
        };
        Sending { response, connection, executor: self.connector.executor.clone() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.connector.rule).finish()
    }
}

/// How sending a request's body has ended; nothing if it did not get that far.
type Ended = oneshot::Receiver<Result<(), Error>>;
type Responding = Pin<Box<dyn Future<Output = Result<(Response<WasiBody>, Ended), Error>> + Send>>;

/// A request under way; dropped, it is given up.
pub(crate) struct Sending {
    /// To be polled where Tokio is entered, which looks names up.
    pub(crate) response: Responding,
    connection: CaptureConnection,
    executor: Executor,
}

impl Sending {
    /// The response of a request that goes on while nobody asks: once it is on a connection it does so by itself.
    pub(crate) fn going_on(self) -> Responding {
        if self.connection.connection_metadata().is_some() {
            return self.response;
        }
        let (mut tell, told) = oneshot::channel();
        let mut response = self.response;
        self.executor.spawn(async move {
            let responded = poll_fn(|cx| match tell.poll_closed(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => response.as_mut().poll(cx).map(Some),
            });
            if let Some(responded) = responded.await {
                // Given up just now.
                let _ = tell.send(responded);
            }
        });
        Box::pin(async { told.await.unwrap_or(Err(Error::ConnectionTerminated)) })
    }
}

async fn exchange(
    executor: Executor,
    connections: Connections,
    (mut request, mut ended): (Request<Outgoing>, Ended),
    connection: CaptureConnection,
    options: RequestOptions,
    permits: Permits,
) -> Result<(Response<WasiBody>, Ended), Error> {
    if request.body().framing == Framing::Unsettled {
        settle(&mut request).await?;
    }
    let (authority, begun) = (request.uri().authority().cloned(), Instant::now());
    let mut responding = pin!(connections.client.request(request));
    let mut is_connected = false;
    let mut timer = pin!(executor.sleep_until(begun + options.connect_timeout.unwrap_or(CONNECT)));
    let response = poll_fn(|cx| {
        if let Poll::Ready(responded) = responding.as_mut().poll(cx) {
            return Poll::Ready(Ok(responded));
        }
        if !is_connected && connection.connection_metadata().is_some() {
            is_connected = true;
            timer.set(executor.sleep_until(Instant::now() + options.first_byte_timeout.unwrap_or(READ)));
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(if is_connected { Error::ConnectionReadTimeout } else { Error::ConnectionTimeout }))
    });
    let response = response.await?.map_err(|failed| match ended.try_recv() {
        // It is the guest who broke it off.
        Ok(Err(error)) => error,
        _ => {
            let last = || connections.last.to(authority.as_ref()?, begun);
            let trouble = Trouble::of(&connection).or_else(last);
            error::of_request(&failed, trouble.as_ref().and_then(Trouble::error))
        }
    })?;
    // hyper would speak HTTP/1.0 to it from now on, which knows no chunks, and leave out the bodies that need some.
    if response.version() == Version::HTTP_10
        && let Some(connected) = connection.connection_metadata().as_ref()
    {
        connected.poison();
    }
    // Nobody has asked for another protocol.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::HttpUpgradeFailed);
    }
    let (mut head, body) = response.into_parts();
    let of_connection = hop_by_hop::strip_named(&mut head.headers);
    let between_bytes = options.between_bytes_timeout.unwrap_or(READ);
    let trouble = Trouble::of(&connection);
    let body = Download { body, executor, between_bytes, timer: None, trouble, of_connection, permits: Some(permits) };
    Ok((Response::from_parts(head, body.boxed_unsync()), ended))
}

/// A request's body on its way out.
struct Outgoing {
    /// What was taken out of `rest` already.
    first: Option<Frame<Bytes>>,
    rest: WasiBody,
    ended: Option<oneshot::Sender<Result<(), Error>>>,
    framing: Framing,
}

/// What the head says of its body (RFC 9112 §6). It depends on what the guest did before it sent the head, and not on how far the guest has
/// come when that goes out: hyper hears of length and end only from what is of [`Length`](Self::Length).
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    /// There may be none: to be known with the first of it.
    Unsettled,
    /// Its length, or nothing where there is none.
    Length,
    /// In chunks; hyper takes that out of a head of HTTP/2.
    Chunked,
}

/// The guest has not finished its body.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was broken off")]
struct BrokenOff;

fn outgoing(request: Request<WasiBody>) -> (Request<Outgoing>, Ended) {
    let (tell, ended) = oneshot::channel();
    let (mut head, rest) = request.into_parts();
    let means_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    let framing = match rest.size_hint().exact() {
        _ if head.headers.contains_key(CONTENT_LENGTH) => Framing::Length,
        // Where one is meant, servers want to hear that there is none (RFC 9110 §8.6).
        Some(0) if !means_one => Framing::Length,
        Some(length) => {
            head.headers.insert(CONTENT_LENGTH, length.into());
            Framing::Length
        }
        None if means_one => in_chunks(&mut head.headers),
        None => Framing::Unsettled,
    };
    let body = Outgoing { first: None, rest, ended: Some(tell), framing };
    (Request::from_parts(head, body), ended)
}

/// What most often has no body waits until it is known whether there is one: many guests finish theirs only after they have sent the head,
/// and some servers do not take a `GET` with an empty body in chunks.
///
/// # Errors
/// The guest has broken it off: there is nothing to ask.
async fn settle(request: &mut Request<Outgoing>) -> Result<(), Error> {
    let first = request.body_mut().rest.frame().await.transpose()?;
    let framing = if first.is_some() { in_chunks(request.headers_mut()) } else { Framing::Length };
    let body = request.body_mut();
    (body.first, body.framing) = (first, framing);
    Ok(())
}

fn in_chunks(headers: &mut HeaderMap) -> Framing {
    headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    Framing::Chunked
}

impl Outgoing {
    fn end(&mut self, result: Result<(), Error>) {
        if let Some(tell) = self.ended.take() {
            // Nobody may want to know.
            let _ = tell.send(result);
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let frame = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(Pin::new(&mut self.rest).poll_frame(cx)),
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                // After trailers nobody asks again.
                if frame.is_trailers() {
                    self.end(Ok(()));
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.end(Err(error));
                Some(Err(BrokenOff))
            }
            None => {
                self.end(Ok(()));
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.framing == Framing::Length && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.framing == Framing::Length { self.rest.size_hint() } else { SizeHint::default() }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Whoever knows the length need not look for the end. Why another one goes no further is not the body's to say.
        if self.is_end_stream() || self.size_hint().exact() == Some(0) {
            self.end(Ok(()));
        }
    }
}

/// A response's body. Read by the worker of the guest.
struct Download {
    body: Incoming,
    executor: Executor,
    between_bytes: Duration,
    /// While it waits for more.
    timer: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    trouble: Option<Trouble>,
    /// What its head has said of the connection, and is none of the guest's in trailers either.
    of_connection: Vec<HeaderName>,
    /// Until it has ended.
    permits: Option<Permits>,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let trouble = this.trouble.as_ref().and_then(Trouble::error);
                frame.map(|frame| match frame {
                    Ok(mut frame) => {
                        if let Some(trailers) = frame.trailers_mut() {
                            hop_by_hop::clean_trailers(trailers);
                            this.of_connection.iter().for_each(|name| drop(trailers.remove(name)));
                        }
                        Ok(frame)
                    }
                    Err(error) => Err(error::of_body(&error, trouble)),
                })
            }
            Poll::Pending => {
                watch::note(WaitsFor::Outgoing);
                let sleep = || Box::pin(this.executor.sleep_until(Instant::now() + this.between_bytes)) as Pin<Box<_>>;
                ready!(this.timer.get_or_insert_with(sleep).as_mut().poll(cx));
                Some(Err(Error::ConnectionReadTimeout))
            }
        };
        self.timer = None;
        if !matches!(frame, Some(Ok(_))) {
            self.permits = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
