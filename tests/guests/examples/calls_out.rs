//! Fetches the URL that is its query (`/?http://…`) and passes the answer on; an error is told in the body with 502.

use guest_sdk::{Body, IntoResponse, Request, RequestBuilder, Response, StatusCode, fetch, handler};

#[handler]
fn call(request: Request) -> Response {
    let url = request.uri().query().unwrap_or("http://127.0.0.1:1/");
    match RequestBuilder::new().uri(url).body(Body::empty()) {
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        Ok(request) => {
            fetch(request).unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response())
        }
    }
}
