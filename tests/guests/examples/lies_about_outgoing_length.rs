//! Posts with `content-length: 11` to the URL that is its query: eleven bytes, three, eighteen.
//!
//! The host must accept the first; refuse to finish the second (`http-request-body-size` with what was written), refuse to write and to
//! finish the third (the same), whose stream is closed then; and the upstream must never take either for whole.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::{
        http::{
            outgoing_handler::handle,
            types::{IncomingRequest, Method, OutgoingBody, ResponseOutparam, http_error_code},
        },
        io::streams::StreamError,
    },
};

test_guests::export!(lie);

fn lie(request: &IncomingRequest, responder: ResponseOutparam) {
    let url = out::url(request);
    let mut text = String::new();
    for bytes in ["long enough", "msg", "more than 11 bytes"] {
        let outgoing = out::request(&Method::Post, &url, &[("content-length", "11")]);
        let body = outgoing.body().expect("the first call");
        let future = handle(outgoing, None).expect("a valid request");
        let stream = body.write().expect("the first call");
        let written = match stream.blocking_write_and_flush(bytes.as_bytes()) {
            Ok(()) => "accepted".to_owned(),
            Err(StreamError::Closed) => "closed".to_owned(),
            Err(StreamError::LastOperationFailed(error)) => format!("{:?}", http_error_code(&error)),
        };
        let after = stream.check_write().map_or_else(|error| format!("{error:?}"), |_| "open".to_owned());
        drop(stream);
        let finished = OutgoingBody::finish(body, None);
        let whole = out::wait(&future).is_ok_and(|response| response.status() == 200);
        text +=
            &format!("{} bytes: write {written}, then {after}, finish {finished:?}, answered {whole}\n", bytes.len());
    }
    test_guests::answer(responder, &text);
}
