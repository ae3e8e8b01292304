//! Computes without end, before it answers.

use guest_sdk::{Request, Response, handler};

#[handler]
fn spin(_request: Request) -> Response {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}
