//! A guest on waki, an SDK without `async`: a request's body can be read in pieces, a response's is made before it is sent.

use waki::{ErrorCode, Method, Request, Response, handler};

#[handler]
fn answer(request: Request) -> Result<Response, ErrorCode> {
    let response = Response::builder();
    match (request.method(), request.path()) {
        (Method::Get, "/") => response.body(b"Hello World!"),
        (Method::Post, "/echo") => {
            let body = request.body().map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
            response.body(body)
        }
        _ => response.status_code(404).body(b"no such page\n"),
    }
    .build()
}
