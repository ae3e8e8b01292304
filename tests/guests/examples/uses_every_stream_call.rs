//! Skips four bytes of its request's body, sends back the rest by `splice`, then four zero bytes: the calls on streams that SDKs leave out.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

test_guests::export!(use_streams);

fn use_streams(request: &IncomingRequest, responder: ResponseOutparam) {
    let input = request.consume().expect("the first call");
    let from = input.stream().expect("the first call");
    let output = test_guests::head(responder, 200, &[]);
    let to = output.write().expect("the first call");
    let mut to_skip = 4;
    while to_skip > 0 {
        match from.blocking_skip(to_skip) {
            Ok(skipped) => to_skip -= skipped,
            Err(_) => break,
        }
    }
    while to.blocking_splice(&from, 16 * 1024).is_ok() {}
    to.blocking_write_zeroes_and_flush(4).expect("a client that reads");
    drop(to);
    OutgoingBody::finish(output, None).expect("a finished body");
}
