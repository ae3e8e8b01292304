//! Asks the URL that is its query by POST and by GET: without a body, and with one that is finished before the head is sent or after it, each empty
//! and not; passes the answers on.
//!
//! What goes out says how long the body is if that was known when its head was sent, and is in chunks if not. Where there is none a POST says
//! so (RFC 9110 section 8.6), and a GET has nothing to say; a GET that has one says so too (RFC 9112 section 6).
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{
        ErrorCode, IncomingRequest, IncomingResponse, Method, OutgoingBody, OutgoingRequest, ResponseOutparam,
    },
};

test_guests::export!(ask);

type Sends = fn(OutgoingRequest, &[u8]) -> Result<IncomingResponse, ErrorCode>;

fn finished_before(request: OutgoingRequest, bytes: &[u8]) -> Result<IncomingResponse, ErrorCode> {
    let body = request.body().expect("the first call");
    let stream = body.write().expect("the first call");
    out::write_all(&stream, bytes).expect("there is room");
    drop(stream);
    OutgoingBody::finish(body, None)?;
    out::send(request)
}

fn ask(request: &IncomingRequest, responder: ResponseOutparam) {
    let url = out::url(request);
    let ways: [(&str, Sends, &str); 5] = [
        ("none", |request, _| out::send(request), ""),
        ("empty, before", finished_before, ""),
        ("before", finished_before, "some"),
        ("empty, after", out::send_with_body, ""),
        ("after", out::send_with_body, "some"),
    ];
    let mut text = String::new();
    for method in [Method::Post, Method::Get] {
        for (way, send, bytes) in ways {
            text += &match send(out::request(&method, &url, &[]), bytes.as_bytes()) {
                Ok(response) => format!("{method:?} {way}: {}\n", out::read(&response)),
                Err(code) => format!("{method:?} {way}: {code:?}\n"),
            };
        }
    }
    test_guests::answer(responder, &text);
}
