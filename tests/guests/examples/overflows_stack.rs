//! Calls itself without end.

use guest_sdk::{Request, handler};

#[handler]
fn overflow(_request: Request) -> String {
    deeper(1).to_string()
}

fn deeper(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 64]);
    if frame[0] == 0 { n } else { deeper(n + 1) + frame[1] }
}
