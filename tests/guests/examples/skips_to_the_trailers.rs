//! Finishes its request's body without a look at it, on `/some` after the first bytes of it, and says which trailers came.
//!
//! The host must read over the rest, however long it is: that nobody takes the body does not hold up its trailers (WASI HTTP 0.2,
//! `incoming-body.stream`). Without trailers the future is ready when the body has come; if that breaks off, with an error.
#![cfg(target_family = "wasm")]
#![allow(clippy::print_stdout, reason = "its client has gone and reads no answer")]

use test_guests::wasip2::http::types::{IncomingBody, IncomingRequest, ResponseOutparam};

test_guests::export!(skip);

fn skip(request: &IncomingRequest, responder: ResponseOutparam) {
    let body = request.consume().expect("the first call");
    if request.path_with_query().as_deref() == Some("/some") {
        let stream = body.stream().expect("the first call");
        assert!(stream.blocking_read(10).is_ok_and(|bytes| !bytes.is_empty()), "some of it");
    }
    let future = IncomingBody::finish(body);
    future.subscribe().block();
    let text = match future.get().expect("it is ready").expect("the first call") {
        Ok(None) => "none\n".to_owned(),
        Ok(Some(trailers)) => trailers
            .entries()
            .iter()
            .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)))
            .collect(),
        Err(code) => {
            println!("the trailers: {code:?}");
            format!("{code:?}\n")
        }
    };
    test_guests::answer(responder, &text);
}
