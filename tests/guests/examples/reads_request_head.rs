//! Answers with what it got, as the host put it: method, scheme, authority, path and each header, one a line.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(describe);

fn describe(request: &IncomingRequest, responder: ResponseOutparam) {
    let mut text = format!(
        "method {:?}\nscheme {:?}\nauthority {:?}\npath {:?}\n",
        request.method(),
        request.scheme(),
        request.authority(),
        request.path_with_query(),
    );
    for (name, value) in request.headers().entries() {
        text += &format!("{name}: {}\n", value.escape_ascii());
    }
    text.truncate(4096);
    test_guests::answer(responder, &text);
}
