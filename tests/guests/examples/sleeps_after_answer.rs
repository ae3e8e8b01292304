//! Answers completely and says so on stdout, then sleeps for `?ms=` (200) and says that.
#![cfg(target_family = "wasm")]
#![allow(clippy::print_stdout, reason = "tests see there that it got so far")]

use std::{thread, time::Duration};

use test_guests::wasip2::http::types::{IncomingRequest, ResponseOutparam};

test_guests::export!(sleep);

fn sleep(request: &IncomingRequest, responder: ResponseOutparam) {
    let milliseconds =
        test_guests::query(request.path_with_query(), "ms").and_then(|ms| ms.parse().ok()).unwrap_or(200);
    test_guests::answer(responder, "early\n");
    println!("answered");
    thread::sleep(Duration::from_millis(milliseconds));
    println!("slept after the answer");
}
