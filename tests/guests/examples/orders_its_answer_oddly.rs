//! Makes its answer in an unusual order, which its path names.
//!
//! The host must take whole what is finished before it is set, or never written, or never has a body; and must never make a whole answer of a
//! body that was dropped, or of a response that was not set.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

test_guests::export!(answer);

fn answer(request: &IncomingRequest, responder: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    match request.path_with_query().as_deref() {
        Some("/finished-before-set") => {
            let body = response.body().expect("the first call");
            test_guests::write(&body, "finished");
            OutgoingBody::finish(body, None).expect("a finished body");
        }
        Some("/dropped-before-set") => {
            let body = response.body().expect("the first call");
            test_guests::write(&body, "dropped");
            drop(body);
        }
        Some("/never-written") => {
            OutgoingBody::finish(response.body().expect("the first call"), None).expect("a finished body");
        }
        Some("/no-body") => {}
        // Dropped with all that is its own, and the place for an answer with it.
        _ => return drop(response),
    }
    ResponseOutparam::set(responder, Ok(response));
}
