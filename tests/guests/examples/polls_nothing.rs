//! Waits for nothing at all: `poll` with an empty list.
//!
//! The host must trap it (WASI I/O 0.2, `poll`).
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    http::types::{IncomingRequest, ResponseOutparam},
    io::poll::poll,
};

test_guests::export!(wait);

fn wait(_request: &IncomingRequest, responder: ResponseOutparam) {
    poll(&[]);
    test_guests::answer(responder, "not trapped\n");
}
