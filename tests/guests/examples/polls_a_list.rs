//! Waits for several things at once: a clock that rings after 50 ms, one that rings after an hour, and its request's body. Says which
//! were ready.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    clocks::monotonic_clock::subscribe_duration,
    http::types::{IncomingRequest, ResponseOutparam},
    io::poll::poll,
};

test_guests::export!(wait);

fn wait(request: &IncomingRequest, responder: ResponseOutparam) {
    let body = request.consume().expect("the first call");
    let stream = body.stream().expect("the first call");
    let (soon, late, bytes) =
        (subscribe_duration(50_000_000), subscribe_duration(3_600_000_000_000), stream.subscribe());
    let mut text = format!("body ready at first: {}\n", bytes.ready());
    text += &format!("ready: {:?}\n", poll(&[&late, &soon]));
    text += &format!("ready: {:?}\n", poll(&[&late, &bytes]));
    test_guests::answer(responder, &text);
}
