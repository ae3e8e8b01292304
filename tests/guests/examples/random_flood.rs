//! Asks for `?bytes=` (1 GiB) of random bytes in one call, and says how many it got.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    http::types::{IncomingRequest, ResponseOutparam},
    random::random::get_random_bytes,
};

test_guests::export!(flood);

fn flood(request: &IncomingRequest, responder: ResponseOutparam) {
    let wanted =
        test_guests::query(request.path_with_query(), "bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(1 << 30);
    let bytes = get_random_bytes(wanted);
    test_guests::answer(responder, &format!("{} random bytes\n", bytes.len()));
}
