//! Posts `data` and the trailer `x-sum: 4` to the URL that is its query, and answers with the trailers of the response.
//!
//! The host must send the trailer after the body and deliver those that come back, which are immutable.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::{
        outgoing_handler::handle,
        types::{Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, ResponseOutparam},
    },
};

test_guests::export!(send);

fn send(request: &IncomingRequest, responder: ResponseOutparam) {
    let outgoing = out::request(&Method::Post, &out::url(request), &[("trailer", "x-sum")]);
    let body = outgoing.body().expect("the first call");
    let future = handle(outgoing, None).expect("a valid request");
    test_guests::write(&body, "data");
    let trailers = Fields::from_list(&[("x-sum".to_owned(), b"4".to_vec())]).expect("a valid trailer");
    OutgoingBody::finish(body, Some(trailers)).expect("a finished body");

    let response = out::wait(&future).expect("an answer");
    let incoming = response.consume().expect("the first call");
    let stream = incoming.stream().expect("the first call");
    let mut text = String::new();
    out::read_stream(&stream, |chunk| text += &String::from_utf8_lossy(&chunk)).expect("a whole body");
    drop(stream);
    let future = IncomingBody::finish(incoming);
    future.subscribe().block();
    let trailers = future.get().expect("it is ready").expect("the first call").expect("a whole body");
    let trailers = trailers.expect("trailers");
    text += &format!(", {:?}", trailers.entries());
    text += &format!(", {:?}", trailers.append("x-more", b"1"));
    drop(trailers);
    test_guests::answer(responder, &text);
}
