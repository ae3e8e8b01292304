//! Sends its head and five bytes, then computes without end.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(spin);

fn spin(_request: &IncomingRequest, responder: ResponseOutparam) {
    let body = test_guests::head(responder, 200, &[]);
    test_guests::write(&body, "first");
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}
