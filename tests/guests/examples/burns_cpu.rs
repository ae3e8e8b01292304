//! Computes for as many turns as it is told, `/?turns=1000000`, and waits for nothing. A turn takes the same time each time, so
//! whoever asks can find out how many make a millisecond.

use guest_sdk::{Request, handler};

#[handler]
fn burn(request: Request) -> String {
    let turns = request.uri().query().and_then(|query| query.strip_prefix("turns=")?.parse().ok()).unwrap_or(1_000_000);
    let mut n = 0_u64;
    for _ in 0..turns {
        n = std::hint::black_box(n.wrapping_add(1));
    }
    format!("{n} turns\n")
}
