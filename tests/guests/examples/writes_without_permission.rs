//! Writes to an outgoing request's body (URL in the query) what `check-write` allows, until that stays nothing; then says `full`, waits for
//! its pollable, and says what is allowed now. If its path is `/trap` it writes more than it was allowed instead.
//!
//! The upstream does not read before `full`. The host must hold a bounded amount, say otherwise when the pollable is ready and not before, and
//! trap a guest that writes more than it was allowed: 500 for the client.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::{
        clocks::monotonic_clock::subscribe_duration,
        http::{
            outgoing_handler::handle,
            types::{IncomingRequest, Method, OutgoingBody, ResponseOutparam},
        },
        io::{poll::poll, streams::OutputStream},
    },
};

test_guests::export!(write);

/// Much more than any socket buffers.
const TOO_MUCH: usize = 256 << 20;
/// So long nothing goes out when nothing is read.
const STILL: u64 = 200_000_000;

fn write(request: &IncomingRequest, responder: ResponseOutparam) {
    let outgoing = out::request(&Method::Post, &out::url(request), &[]);
    let body = outgoing.body().expect("the first call");
    let _future = handle(outgoing, None).expect("a valid request");
    let stream = body.write().expect("the first call");
    let bytes = vec![0; 1 << 20];
    if request.path_with_query().is_some_and(|path| path.starts_with("/trap")) {
        // More than it says, whatever that is.
        let _ = stream.write(&bytes);
        return test_guests::answer(responder, "not trapped\n");
    }
    let is_bounded = fill(&stream, &bytes);
    let answer = test_guests::head(responder, 200, &[]);
    let says = answer.write().expect("the first call");
    let say = |text: &str| says.blocking_write_and_flush(text.as_bytes()).expect("a client that reads");
    say(if is_bounded { "full\n" } else { "without end\n" });
    stream.subscribe().block();
    say(&format!("allowed again: {}\n", stream.check_write().is_ok_and(|allowed| allowed > 0)));
    drop(says);
    OutgoingBody::finish(answer, None).expect("a finished body");
}

/// Writes until the stream takes nothing for a while; false if that never comes.
fn fill(stream: &OutputStream, bytes: &[u8]) -> bool {
    let mut accepted = 0;
    let pollable = stream.subscribe();
    while accepted < TOO_MUCH {
        let allowed = usize::try_from(stream.check_write().expect("an open stream")).unwrap_or(usize::MAX);
        if allowed == 0 && !poll(&[&pollable, &subscribe_duration(STILL)]).contains(&0) {
            return true;
        }
        let allowed = allowed.min(bytes.len());
        stream.write(&bytes[..allowed]).expect("it was allowed");
        accepted += allowed;
    }
    false
}
