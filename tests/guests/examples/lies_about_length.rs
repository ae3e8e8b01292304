//! Says `content-length: 10`. `/short` sends five bytes, `/long` fifteen, `/none` never opens its body.
#![cfg(target_family = "wasm")]
#![allow(clippy::print_stdout, reason = "tests see there what the host answered")]

use test_guests::wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

test_guests::export!(lie);

fn lie(request: &IncomingRequest, responder: ResponseOutparam) {
    let body = test_guests::head(responder, 200, &[("content-length", "10")]);
    let text = match request.path_with_query().as_deref() {
        Some("/short") => "01234",
        Some("/long") => "0123456789abcde",
        _ => "",
    };
    if !text.is_empty() {
        let stream = body.write().expect("the first call");
        let written = stream.blocking_write_and_flush(text.as_bytes());
        println!("write: {}", if written.is_ok() { "accepted" } else { "refused" });
    }
    let finished = OutgoingBody::finish(body, None);
    println!("finish: {}", if finished.is_ok() { "accepted" } else { "refused" });
}
