//! Reads all of its request's body, however slowly it comes, and says how many bytes and chunks that were.

use std::io;

use guest_sdk::{Request, handler};

#[handler]
fn read(mut request: Request) -> io::Result<String> {
    let (mut bytes, mut chunks) = (0, 0);
    for chunk in request.body_mut() {
        bytes += chunk?.len();
        chunks += 1;
    }
    Ok(format!("{bytes} bytes in {chunks} chunks\n"))
}
