//! What the fuzz targets of `tests/fuzz` reach beside the public API. There is no such room unless cargo-fuzz sets `cfg(fuzzing)`.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderValue};

pub use crate::{
    control::fuzzing::{Asked, asked, target},
    guest::printed_head,
};
use crate::{
    dispatch,
    forwarded::{self, Network},
    hop_by_hop,
    log_line::{AccessLine, GuestLine, LogFormat},
    request_id::{RequestId, RequestIds},
};

/// Makes the head of a request the guest's; returns the host's id of it, and the client's.
pub fn prepare(
    headers: &mut HeaderMap,
    peer: Option<SocketAddr>,
    proto: &str,
    trusted: &[Network],
) -> (String, Option<HeaderValue>) {
    let id = id();
    let client_id = dispatch::prepare(headers, &id);
    forwarded::rewrite(headers, peer, proto, trusted);
    (id.to_string(), client_id)
}

/// Removes what concerns one connection.
pub fn clean(headers: &mut HeaderMap) {
    hop_by_hop::clean(headers);
}

/// A line of the access log.
#[must_use]
pub fn access_line(format: LogFormat, handler: &str, client_id: Option<&str>, method: &str, path: &str) -> String {
    let mut line = String::new();
    let access = AccessLine {
        handler,
        revision: 1,
        id: id(),
        client_id,
        peer: None,
        method,
        path,
        status: 200,
        bytes_in: 0,
        bytes_out: 0,
        queued: Duration::ZERO,
        wall: Duration::ZERO,
        cpu: Duration::ZERO,
        peak_memory: 0,
        outcome: "ok",
    };
    format.access_line(&mut line, &access);
    line
}

/// The line for one that a guest printed.
#[must_use]
pub fn guest_line(format: LogFormat, handler: &str, text: &str) -> String {
    let mut line = String::new();
    format.guest_line(&mut line, &GuestLine { handler, id: id(), stream: "stdout", text });
    line
}

/// The line for what the host itself has to say.
#[must_use]
pub fn host_line(format: LogFormat, target: &str, message: &str) -> String {
    let mut line = String::new();
    format.host_line(&mut line, log::Level::Info, target, message);
    line
}

fn id() -> RequestId {
    RequestIds::new().next()
}
