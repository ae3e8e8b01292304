//! Appends to one `fields` without end: names that differ, without values, or on `/values` values of one name.
//!
//! The host must hold a bounded amount, and trap it: 500 for the client.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, ResponseOutparam};

test_guests::export!(append);

fn append(request: &IncomingRequest, responder: ResponseOutparam) {
    let is_one_name = request.path_with_query().as_deref() == Some("/values");
    let fields = Fields::new();
    for n in 0..1_000_000 {
        let name = if is_one_name { "x-name".to_owned() } else { format!("x-{n}") };
        if fields.append(&name, b"").is_err() {
            return test_guests::answer(responder, "refused\n");
        }
    }
    test_guests::answer(responder, "accepted\n");
}
