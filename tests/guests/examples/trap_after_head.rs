//! Sends its head and five bytes, and panics when they are gone. `/length` promises ten bytes in `content-length`; `/at-once` does not wait.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(trap);

fn trap(request: &IncomingRequest, responder: ResponseOutparam) {
    let promised = [("content-length", "10")];
    let headers: &[_] = if request.path_with_query().as_deref() == Some("/length") { &promised } else { &[] };
    let body = test_guests::head(responder, 200, headers);
    test_guests::write(&body, "first");
    test_guests::let_it_leave(request);
    panic!("trapped after the head");
}
