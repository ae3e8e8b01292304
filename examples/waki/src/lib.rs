//! Hello over waki.

use waki::{ErrorCode, Request, Response, handler};

#[handler]
fn hello(_request: Request) -> Result<Response, ErrorCode> {
    Response::builder().body(b"Hello World!").build()
}
