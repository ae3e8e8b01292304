//! Sends a request by every method to the URL that is its query, `x-test: one` and `x-test: two` with each, a body with some.
//!
//! The host must pass on method, path with query, both headers and body as they are, and set `host`; the answers come back whole, that to HEAD
//! without a body.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{IncomingRequest, Method, ResponseOutparam},
};

test_guests::export!(all);

const HEADERS: [(&str, &str); 2] = [("x-test", "one"), ("x-test", "two")];

fn all(request: &IncomingRequest, responder: ResponseOutparam) {
    let url = out::url(request);
    let mut text = String::new();
    for (method, body) in [
        (Method::Get, ""),
        (Method::Head, ""),
        (Method::Post, "posted"),
        (Method::Put, "put"),
        (Method::Patch, "patched"),
        (Method::Delete, ""),
        (Method::Options, ""),
        (Method::Trace, ""),
        (Method::Other("BREW".into()), ""),
        (Method::Other("GET".into()), ""),
    ] {
        let request = out::request(&method, &url, &HEADERS);
        let answer = if body.is_empty() { out::send(request) } else { out::send_with_body(request, body.as_bytes()) };
        text += &match answer {
            Ok(response) => format!("{method:?}: {}\n", out::read(&response)),
            Err(code) => format!("{method:?}: {code:?}\n"),
        };
    }
    test_guests::answer(responder, &text);
}
