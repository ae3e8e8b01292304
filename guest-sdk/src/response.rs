//! What a handler may return: everything here becomes one [`Response`].

use std::{error::Error, io::Write};

use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};

use crate::{Body, BodyError, FetchError, Response};

/// What a handler may return.
///
/// `&str` and `String` are sent as `text/plain; charset=utf-8`, `Vec<u8>` as `application/octet-stream`. An error answers 500 (a [`BodyError`]
/// or [`FetchError`] anywhere in its chain: that one's status) without a word to the client; its chain goes to stderr, which the host logs.
pub trait IntoResponse {
    /// Makes the response.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        with_type("text/plain; charset=utf-8", Body::new(self))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        with_type("text/plain; charset=utf-8", Body::new(self))
    }
}

impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        with_type("application/octet-stream", Body::new(self))
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        with_status(self, Body::empty())
    }
}

impl<T: IntoResponse> IntoResponse for (StatusCode, T) {
    fn into_response(self) -> Response {
        let mut response = self.1.into_response();
        *response.status_mut() = self.0;
        response
    }
}

impl<T: IntoResponse, E: Into<Box<dyn Error>>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => failed(error.into().as_ref()),
        }
    }
}

/// A value that is sent as JSON, with `content-type: application/json`.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

#[cfg(feature = "json")]
impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => with_type("application/json", Body::new(json)),
            Err(error) => failed(&error),
        }
    }
}

fn with_type(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(crate) fn with_status(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn failed(error: &(dyn Error + 'static)) -> Response {
    report("the handler failed", error);
    let status = chain(error).find_map(status_of).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_status(status, Body::empty())
}

fn status_of(error: &(dyn Error + 'static)) -> Option<StatusCode> {
    // What is in an `io::Error` is not its source.
    let fetch = error.downcast_ref().or_else(|| error.downcast_ref().and_then(FetchError::of));
    error.downcast_ref().map(BodyError::status).or_else(|| fetch.map(FetchError::status))
}

/// An error, what caused it, what caused that…
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// Writes an error and what caused it to stderr, as one line.
pub(crate) fn report(what: &str, error: &(dyn Error + 'static)) {
    let mut line = what.to_owned();
    for cause in chain(error) {
        line.push_str(": ");
        line.push_str(&cause.to_string());
    }
    line.push('\n');
    // Without stderr there is nowhere to complain.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_answers_500_and_says_nothing_to_the_client() {
        let failure: Result<&str, _> = Err(io::Error::other("/etc/secret is missing"));
        let response = failure.into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(response.into_body().length(), Some(0));
    }

    #[test]
    fn a_bad_request_body_is_the_clients_fault() {
        let too_large = Body::new("12345").text_up_to(4);
        assert_eq!(too_large.into_response().status(), 413);
        let nested: Result<&str, _> = Err(BodyError::Invalid(Box::new(BodyError::TooLarge { limit: 4 })));
        assert_eq!(nested.into_response().status(), 400);
    }

    #[test]
    fn text_says_that_it_is_text() {
        assert_eq!("x".into_response().headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
        let created = (StatusCode::CREATED, String::from("x")).into_response();
        assert_eq!((created.status().as_u16(), created.into_body().length()), (201, Some(1)));
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_goes_both_ways() {
        let response = Json([1, 2]).into_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.into_body().json::<Vec<u8>>().expect("an array"), [1, 2]);
        assert_eq!(Body::new("{").json::<u8>().expect_err("not a number").status(), 400);
    }
}
