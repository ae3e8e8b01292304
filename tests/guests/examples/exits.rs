//! Ends by `wasi:cli/exit`, where its path says: before its answer, in the middle of it, or after it; with status 1 for `?1`.
//!
//! The host must treat it as the guest's end: 500 without an answer, a cut one where half of it has left, and a whole one stays whole.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(exit);

fn exit(request: &IncomingRequest, responder: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    let (place, status) = path.split_once('?').unwrap_or((&path, "0"));
    match place {
        "/before" => {}
        "/within" => {
            let body = test_guests::head(responder, 200, &[]);
            test_guests::write(&body, "first");
            test_guests::let_it_leave(request);
        }
        _ => test_guests::answer(responder, "whole\n"),
    }
    std::process::exit(status.parse().expect("a number"));
}
