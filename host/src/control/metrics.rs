//! What `status` says in numbers, in the text format that Prometheus reads (exposition format, version 0.0.4).

use std::fmt::Write as _;

use astra_server::{Body, Response};
use http::{HeaderValue, header::CONTENT_TYPE};

use crate::status::{HandlerStatus, Status};

/// One family of numbers of handlers: name, kind, help, and which.
type OfHandler = (&'static str, &'static str, &'static str, fn(&HandlerStatus) -> u64);

const OF_HANDLERS: [OfHandler; 5] = [
    ("requests_total", "counter", "Requests that reached a guest.", |handler| handler.requests),
    ("failures_total", "counter", "Of those, failures of the guest.", |handler| handler.failures),
    ("refused_total", "counter", "Requests answered 503 since the queue was full or slow.", |handler| handler.refused),
    ("in_flight", "gauge", "Requests that run or wait in guests.", |handler| handler.in_flight),
    ("queued", "gauge", "Requests that wait to be started.", |handler| handler.queued),
];

pub(super) fn response(status: &Status) -> Response {
    let mut response = Response::new(Body::new(text(status)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    response
}

fn text(status: &Status) -> String {
    let traffic = &status.traffic;
    let mut out = String::new();
    family(&mut out, "connections", "gauge", "Connections that are open.", [(String::new(), traffic.connections)]);
    family(&mut out, "connections_total", "counter", "Connections so far.", [(String::new(), traffic.accepted)]);
    let events = traffic.events.iter().map(|(name, count)| (format!("{{event=\"{name}\"}}"), *count));
    family(&mut out, "events_total", "counter", "Bounds that were hit, clients that were cut or refused.", events);
    for (name, kind, help, of) in OF_HANDLERS {
        // A handler's name has nothing in it that would have to be escaped.
        let handlers = status.handlers.iter().map(|handler| (format!("{{handler=\"{}\"}}", handler.name), of(handler)));
        family(&mut out, name, kind, help, handlers);
    }
    out
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (String, u64)>) {
    // Writing to a `String` does not fail.
    let _ = writeln!(out, "# HELP astra_{name} {help}\n# TYPE astra_{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(out, "astra_{name}{labels} {value}");
    }
}
