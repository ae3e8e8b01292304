//! The smallest guest.

use guest_sdk::{Body, Request, Response, handler};

#[handler]
fn hello(_req: Request) -> Response {
    Response::new(Body::new("Hello World!"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_hello() {
        let response = hello(Request::new(Body::empty()));
        assert_eq!(response.into_body().text().expect("text"), "Hello World!");
    }
}
