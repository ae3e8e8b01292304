//! Sleeps without end, before it answers.

use std::{thread, time::Duration};

use guest_sdk::{Request, Response, handler};

#[handler]
fn sleep(_request: Request) -> Response {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
