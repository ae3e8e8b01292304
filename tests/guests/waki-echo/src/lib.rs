//! Collects its request's body and sends it back, over waki.

use waki::{ErrorCode, Request, Response, handler};

#[handler]
fn echo(request: Request) -> Result<Response, ErrorCode> {
    let body = request.body().map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    Response::builder().body(body).build()
}
