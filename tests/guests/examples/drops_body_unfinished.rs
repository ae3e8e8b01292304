//! Sends its head and five bytes, drops its body without finishing it, and returns as if all were well. It waits until they are gone,
//! but not for `/at-once`.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(drop_body);

fn drop_body(request: &IncomingRequest, responder: ResponseOutparam) {
    let body = test_guests::head(responder, 200, &[]);
    test_guests::write(&body, "first");
    test_guests::let_it_leave(request);
    drop(body);
}
