//! Makes handles and never drops them, until the host refuses; answers only if it gets a million.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

test_guests::export!(exhaust);

fn exhaust(_request: &IncomingRequest, responder: ResponseOutparam) {
    for _ in 0..1_000_000 {
        std::mem::forget(Fields::new());
    }
    test_guests::answer(responder, "got a million handles\n");
}
