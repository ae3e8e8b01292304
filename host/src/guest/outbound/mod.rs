//! Outgoing HTTP: where a guest's requests may go, and how many there may be.
//!
//! Each rule of a handler has a client of its own (`client.rs`), whose connections all requests of the handler share and which outlives a
//! swap of its module. It is decided twice: here for what the guest names, in the client for the addresses to which that leads, and to
//! exactly those it connects. Asked on the worker that runs the guest; connections are tasks beside it. What both versions of `wasi:http` ask is
//! here, the rest of 0.2's is in `outgoing_handler.rs`.

mod client;
mod connector;
mod error;
mod stream;
mod tls;

use std::{net::Ipv6Addr, sync::Arc};

use astra_server::Executor;
use http::{
    HeaderName, Method, Request, Response, Uri,
    uri::{Authority, Scheme},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime_wasi_http::{Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};

use self::client::Client;
pub use self::tls::TlsError;
pub(crate) use self::{client::Sending, error::code, tls::config as tls_config};
use super::{
    denials::Denials,
    descriptors::Room,
    destination::{LONGEST_NAME, OutboundRule, default_port, port},
    granted::Granted,
    resolver::Resolver,
    watch::{WaitsFor, noting},
};
use crate::hop_by_hop::concerns_connection;

/// Requests that a handler's guests may have under way, from their start to the end of their response. How many connections there may be,
/// idle ones included, `descriptors.rs` says.
const OF_ONE_HANDLER: usize = 4096;
/// Of those, one guest's: with 128 KiB each of a body that waits to be sent.
const OF_ONE_GUEST: usize = 128;

/// What the guests of a handler may ask for, and its connections.
#[derive(Debug)]
pub(crate) struct Outbound {
    clients: Vec<Client>,
    in_flight: Arc<Semaphore>,
}

impl Outbound {
    /// Connects nowhere yet.
    pub(crate) fn new(
        rules: &[OutboundRule],
        resolver: &Resolver,
        denials: &Arc<Denials>,
        room: &Room,
        executor: &Executor,
    ) -> Self {
        let clients = rules.iter().map(|rule| Client::new(rule, resolver, denials, room, executor)).collect();
        Self { clients, in_flight: Arc::new(Semaphore::new(OF_ONE_HANDLER)) }
    }
}

/// Two places among the requests under way, the handler's and the guest's.
type Permits = [OwnedSemaphorePermit; 2];

/// Outgoing HTTP as one request may use it.
pub(crate) struct Hooks {
    pub(crate) granted: Arc<Granted>,
    /// Made when first asked for.
    in_flight: Option<Arc<Semaphore>>,
}

impl Hooks {
    pub(crate) fn new(granted: &Arc<Granted>) -> Self {
        Self { granted: Arc::clone(granted), in_flight: None }
    }

    /// Whether there has been a request.
    pub(crate) fn has_asked(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Starts a request whose URI has all its parts.
    ///
    /// # Errors
    /// It is not sent: it goes nowhere, it was not granted, or there are too many.
    pub(crate) fn send(&mut self, mut request: Request<WasiBody>, options: RequestOptions) -> Result<Sending, Error> {
        // What it would make of a connection has no place in `wasi:http`.
        if *request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        let to = Destination::of(request.uri()).ok_or(Error::HttpRequestUriInvalid)?;
        let outbound = self.granted.outbound();
        let Some(client) = outbound.clients.iter().find(|client| to.is_named_by(client.rule())) else {
            let rule = OutboundRule::parse(&to.to_string()).filter(|rule| rule.host.is_literal());
            let rule = rule.map(|rule| format!(r#"outbound = ["{rule}"]"#));
            self.granted.denied(&format!("a request to {to}"), rule.as_deref());
            return Err(Error::HttpRequestDenied);
        };
        client.check_literal(&to.host)?;
        let authority = to.authority()?;
        let of_guest = self.in_flight.get_or_insert_with(|| Arc::new(Semaphore::new(OF_ONE_GUEST)));
        let permit =
            |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().map_err(|_| Error::ConnectionLimitReached);
        let permits = [permit(of_guest)?, permit(&outbound.in_flight)?];
        // However it was spelled: connections are kept by this text.
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Error::HttpRequestUriInvalid)?;
        Ok(client.send(request, options, permits))
    }
}

/// What is taken at once of a body that a guest of 0.3 sends, and waits until that has gone on. wasmtime-wasi-http's is a megabyte.
const CHUNK: usize = 64 * 1024;

/// What a request's URI names, in one spelling.
struct Destination<'a> {
    scheme: &'a Scheme,
    /// A name in lower case without its last dot, or an address; of IPv6 in brackets.
    host: String,
    port: u16,
}

impl<'a> Destination<'a> {
    /// None if it is not complete, has a host or a port that is none, or a user, whose password would go out as `Host` (RFC 9110 §4.2.4).
    fn of(uri: &'a Uri) -> Option<Self> {
        let (scheme, authority) = (uri.scheme()?, uri.authority()?);
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host)?.strip_prefix(':') {
            None | Some("") => default_port(scheme),
            Some(text) => port(text)?,
        };
        let host = match host.strip_prefix('[') {
            Some(address) => format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
        };
        (1..=LONGEST_NAME).contains(&host.len()).then_some(Self { scheme, host, port })
    }

    fn is_named_by(&self, rule: &OutboundRule) -> bool {
        rule.names(self.scheme, &self.host, self.port)
    }

    fn authority(&self) -> Result<Authority, Error> {
        let text = if self.port == default_port(self.scheme) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        };
        Authority::try_from(text).map_err(|_| Error::HttpRequestUriInvalid)
    }
}

impl std::fmt::Display for Destination<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port == default_port(self.scheme) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The sending of a body, which may go on after the head of the response has come.
type Sent = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answered = Box<dyn Future<Output = Result<(Response<WasiBody>, Sent), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    /// The default of this method builds an `Arc` per header.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        concerns_connection(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(concerns_connection)
    }

    /// The client does, for HTTP/1 only: in HTTP/2 the authority has a place of its own (RFC 9113 §8.3.1).
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    /// For guests of 0.3, within whose event loop it is polled.
    fn send_request(&mut self, request: Request<WasiBody>, options: Option<RequestOptions>, _read: Sent) -> Answered {
        match self.send(request, options.unwrap_or_default()) {
            Err(error) => Box::new(std::future::ready(Err(error))),
            Ok(sending) => Box::new(async move {
                let (response, sent) = noting(WaitsFor::Outgoing, sending.response).await?;
                let sent: Sent = Box::new(async { sent.await.unwrap_or(Err(Error::ConnectionTerminated)) });
                Ok((response, sent))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_a_host_and_a_port_and_no_user() {
        for (uri, found) in [
            ("http://example.com/", Some("http://example.com")),
            ("https://example.com:443/", Some("https://example.com")),
            ("https://example.com:80/a", Some("https://example.com:80")),
            ("http://[::1]:8080/", Some("http://[::1]:8080")),
            ("http://[::1]/", Some("http://[::1]")),
            ("http://example.com:0/", None),
            ("http://example.com:65536/", None),
            ("http://user@example.com/", None),
            ("http://user:password@example.com:80/", None),
            ("http://:80/", None),
            ("http://example.com:+80/", None),
            ("http://[127.0.0.1]/", None),
            ("http://EXAMPLE.com.:0080/", Some("http://example.com")),
            ("http://[0:0::1]:00081/", Some("http://[::1]:81")),
            ("/path", None),
        ] {
            let destination = uri.parse::<Uri>().ok();
            let destination = destination.as_ref().and_then(Destination::of).map(|to| to.to_string());
            assert_eq!(destination.as_deref(), found, "{uri}");
        }
    }
}
