//! Sleeps as long as it is told: `/?ms=100`. Meanwhile the host runs others on the same core.

use std::{thread, time::Duration};

use guest_sdk::{Request, handler};

#[handler]
fn slow(request: Request) -> String {
    let milliseconds = request
        .uri()
        .query()
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("ms=")))
        .and_then(|number| number.parse().ok())
        .unwrap_or(100);
    thread::sleep(Duration::from_millis(milliseconds));
    format!("slept {milliseconds} ms\n")
}

#[cfg(test)]
mod tests {
    use guest_sdk::{Body, RequestBuilder};

    use super::*;

    #[test]
    fn says_how_long_it_slept() {
        for (uri, text) in [("/?ms=1", "slept 1 ms\n"), ("/?a=b&ms=2", "slept 2 ms\n"), ("/?ms=x", "slept 100 ms\n")] {
            let request = RequestBuilder::new().uri(uri).body(Body::empty()).expect("a request");
            assert_eq!(slow(request), text);
        }
    }
}
