//! Writes `?lines=` (a million) numbered lines to stdout, then answers.
#![allow(clippy::print_stdout, reason = "that is the point")]

use guest_sdk::{Request, handler};

#[handler]
fn flood(request: Request) -> &'static str {
    let lines = request.uri().query().and_then(|query| query.strip_prefix("lines=")?.parse().ok()).unwrap_or(1_000_000);
    for n in 1..=lines {
        println!("line {n} of a flood");
    }
    "flooded\n"
}
