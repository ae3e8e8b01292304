//! Sets headers that concern only one connection, and a few harmless ones; says in the body which were accepted.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

test_guests::export!(headers);

const HEADERS: [(&str, &str); 11] = [
    ("connection", "close, x-named"),
    ("x-named", "named in connection"),
    ("keep-alive", "timeout=1"),
    ("proxy-connection", "close"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("te", "trailers"),
    ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    ("host", "elsewhere"),
    ("x-harmless", "one"),
    ("x-harmless", "two"),
];

fn headers(_request: &IncomingRequest, responder: ResponseOutparam) {
    let fields = Fields::new();
    let mut text = String::new();
    for (name, value) in HEADERS {
        let accepted = fields.append(name, value.as_bytes()).is_ok();
        text += &format!("{name}: {}\n", if accepted { "accepted" } else { "refused" });
    }
    let response = OutgoingResponse::new(fields);
    let body = response.body().expect("the first call");
    ResponseOutparam::set(responder, Ok(response));
    test_guests::write(&body, &text);
    OutgoingBody::finish(body, None).expect("a finished body");
}
