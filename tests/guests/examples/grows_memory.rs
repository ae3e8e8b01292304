//! Asks for memory without end, or for `?mib=` MiB, and writes to all of it.

use guest_sdk::{Request, handler};

#[handler]
fn grow(request: Request) -> String {
    let wanted = request.uri().query().and_then(|query| query.strip_prefix("mib=")?.parse().ok()).unwrap_or(usize::MAX);
    let mut held = Vec::new();
    while held.len() < wanted {
        held.push(std::hint::black_box(vec![1_u8; 1024 * 1024]));
    }
    format!("grew by {} MiB\n", held.len())
}
