//! Takes what can be taken once a second time, in an exchange with the URL that is its query.
//!
//! The host must refuse each second call with an error, not with a trap, and the exchange goes on.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::{
        outgoing_handler::handle,
        types::{Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam},
    },
};

test_guests::export!(take);

fn take(request: &IncomingRequest, responder: ResponseOutparam) {
    let mut text = String::new();
    let mut say =
        |what: &str, refused: bool| text += &format!("{what}: {}\n", if refused { "refused" } else { "accepted" });
    let outgoing = out::request(&Method::Post, &out::url(request), &[]);
    let body = outgoing.body().expect("the first call");
    say("outgoing-request.body", outgoing.body().is_err());
    let stream = body.write().expect("the first call");
    say("outgoing-body.write", body.write().is_err());
    let future = handle(outgoing, None).expect("a valid request");
    drop(stream);
    OutgoingBody::finish(body, None).expect("a finished body");

    let response = out::wait(&future).expect("an answer");
    say("future-incoming-response.get", matches!(future.get(), Some(Err(()))));
    let incoming = response.consume().expect("the first call");
    say("incoming-response.consume", response.consume().is_err());
    let stream = incoming.stream().expect("the first call");
    say("incoming-body.stream", incoming.stream().is_err());
    let ended = out::read_stream(&stream, drop);
    say("the stream itself", ended.is_err());
    drop(stream);
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let first = trailers.get();
    say("future-trailers.get, first", !matches!(first, Some(Ok(Ok(_)))));
    say("future-trailers.get", matches!(trailers.get(), Some(Err(()))));
    let own = request.consume().expect("the first call");
    say("incoming-request.consume", request.consume().is_err());
    drop(own);
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("the first call");
    say("outgoing-response.body", response.body().is_err());
    drop(body);
    test_guests::answer(responder, &text);
}
