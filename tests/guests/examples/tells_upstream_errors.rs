//! Gets the URL that is its query and says what came: status and body, or the error code of the future; if the body breaks off, that of its
//! stream as `http-error-code` has it.
//!
//! Each way in which an upstream can fail must have the code that RFC 9209 section 2.3 has for it.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{IncomingRequest, Method, ResponseOutparam},
};

test_guests::export!(tell);

fn tell(request: &IncomingRequest, responder: ResponseOutparam) {
    let text = match out::send(out::request(&Method::Get, &out::url(request), &[])) {
        Ok(response) => out::read(&response),
        Err(code) => format!("{code:?}"),
    };
    test_guests::answer(responder, &text);
}
