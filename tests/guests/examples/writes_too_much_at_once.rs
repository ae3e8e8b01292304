//! Writes 4096 bytes at once, which `blocking-write-and-flush` takes, then 4097, which it does not; on `/zeroes` by
//! `blocking-write-zeroes-and-flush`.
//!
//! The host must trap it (WASI I/O 0.2, `output-stream`): the client has a response that is cut after the first.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(write);

fn write(request: &IncomingRequest, responder: ResponseOutparam) {
    let is_zeroes = request.path_with_query().as_deref() == Some("/zeroes");
    let body = test_guests::head(responder, 200, &[]);
    let stream = body.write().expect("the first call");
    for length in [4096, 4097] {
        let written = match is_zeroes {
            true => stream.blocking_write_zeroes_and_flush(length),
            false => stream.blocking_write_and_flush(&vec![b'x'; length as usize]),
        };
        written.expect("a client that reads");
        test_guests::let_it_leave(request);
    }
}
