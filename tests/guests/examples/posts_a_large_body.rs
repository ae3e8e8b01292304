//! Posts 4 MiB to the URL that is its query, as `check-write` allows, and passes the answer on.
//!
//! The host must take it in pieces and make the guest wait for a slow upstream, without ever holding more than its buffers.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{IncomingRequest, Method, ResponseOutparam},
};

test_guests::export!(post);

fn post(request: &IncomingRequest, responder: ResponseOutparam) {
    let outgoing = out::request(&Method::Post, &out::url(request), &[]);
    let body: Vec<u8> = (0..4 << 20).map(|n: u32| n.wrapping_mul(251) as u8).collect();
    let text = match out::send_with_body(outgoing, &body) {
        Ok(response) => out::read(&response),
        Err(code) => format!("{code:?}"),
    };
    test_guests::answer(responder, &text);
}
