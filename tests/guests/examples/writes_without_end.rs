//! Answers with a body that never ends, as fast as it is taken.

use guest_sdk::{Body, Request, Response, handler};

#[handler]
fn write(_request: Request) -> Response {
    Response::new(Body::stream(|writer| {
        loop {
            writer.write_all(&[b'x'; 64 * 1024])?;
        }
    }))
}
