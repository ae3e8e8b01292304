//! Waits for one stream by two pollables, each of them twice in one list; then for one pollable again and again; then for a clock of zero.
//!
//! The host must say all four places that are ready, say so of a pollable that was used before, and have the clock ready at once or soon.
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
    let (one, two) = (stream.subscribe(), stream.subscribe());
    let mut ready = poll(&[&one, &two, &one, &two]);
    ready.sort_unstable();
    let mut text = format!("ready: {ready:?}\n");
    let again = (0..10).all(|_| {
        one.block();
        one.ready()
    });
    text += &format!("again: {again}\n");
    let zero = subscribe_duration(0);
    zero.block();
    text += &format!("zero: {}\n", zero.ready());
    drop((one, two));
    test_guests::answer(responder, &text);
}
