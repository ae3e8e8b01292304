//! Ends a resource whose child is alive, of the kind that its path names.
//!
//! The host must trap the guest: children are to be dropped first (WASI HTTP 0.2, `incoming-body`, `outgoing-body`); for pollables (WASI I/O
//! 0.2) it may, and does. What has no children is dropped in any order.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::{
    clocks::monotonic_clock::subscribe_duration,
    http::types::{Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
};

test_guests::export!(drop_parents);

fn drop_parents(request: &IncomingRequest, responder: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let outgoing = response.body().expect("the first call");
    let to = outgoing.write().expect("the first call");
    let incoming = request.consume().expect("the first call");
    let from = incoming.stream().expect("the first call");
    match request.path_with_query().as_deref() {
        Some("/drop-outgoing") => drop(outgoing),
        Some("/finish-outgoing") => drop(OutgoingBody::finish(outgoing, None)),
        Some("/drop-incoming") => drop(incoming),
        Some("/finish-incoming") => drop(IncomingBody::finish(incoming)),
        Some("/drop-stream") => {
            let pollable = from.subscribe();
            drop(from);
            drop(pollable);
            return test_guests::answer(responder, "not trapped\n");
        }
        _ => drop(subscribe_duration(0)),
    }
    drop((to, from));
    test_guests::answer(responder, "not trapped\n");
}
