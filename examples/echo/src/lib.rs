//! Sends back what it gets, as it comes: neither the guest nor the host ever holds all of it.

use guest_sdk::{
    Request, Response, handler,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

#[handler]
fn echo(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body);
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use guest_sdk::{Body, RequestBuilder};

    use super::*;

    #[test]
    fn sends_back_body_and_type() {
        let request = RequestBuilder::new()
            .header(CONTENT_TYPE, "text/plain")
            .body(Body::wrap_reader(&b"what goes in"[..]))
            .expect("a request");
        let response = echo(request);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(response.into_body().text().expect("text"), "what goes in");
    }
}
