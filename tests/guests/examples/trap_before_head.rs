//! Panics, which is a trap, before anything was sent.

use guest_sdk::{Request, Response, handler};

#[handler]
fn trap(_request: Request) -> Response {
    panic!("trapped before the head");
}
