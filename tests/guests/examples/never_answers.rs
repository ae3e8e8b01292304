//! Drops its chance to answer, and returns.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(never_answer);

fn never_answer(_request: &IncomingRequest, responder: ResponseOutparam) {
    drop(responder);
}
