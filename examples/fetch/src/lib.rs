//! Asks two upstreams at once and puts their answers together; `/proxy/…` passes the request on to the first, as it comes.
//!
//! Where they are is configuration: `config = { greetings = "http://…", weather = "http://…" }`.

use std::time::Duration;

use guest_sdk::{
    Body, FetchError, IntoResponse, Request, Response, StatusCode, Uri, config, fetch, fetch::Timeouts, handler,
};

const LIMIT: usize = 64 * 1024;

#[handler]
fn ask(request: Request) -> Response {
    let answer = if request.uri().path().starts_with("/proxy/") { pass_on(request) } else { ask_both() };
    // `FetchError` would answer by itself, with nothing but a status: here the client is told a little more.
    answer.unwrap_or_else(|error| match error.status() {
        StatusCode::GATEWAY_TIMEOUT => (StatusCode::GATEWAY_TIMEOUT, "an upstream takes too long\n").into_response(),
        _ => (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
    })
}

fn ask_both() -> Result<Response, FetchError> {
    // Both are on their way before the first is waited for.
    let greetings = fetch::start(get("greetings")?)?;
    let weather = fetch::start(get("weather")?)?;
    let (mut greetings, mut weather) = (greetings.wait()?, weather.wait()?);
    // A response that breaks off, or is too large, is a `FetchError` too.
    let mut text = greetings.body_mut().text_up_to(LIMIT)?;
    text.push_str(&weather.body_mut().text_up_to(LIMIT)?);
    Ok(text.into_response())
}

fn get(upstream: &str) -> Result<Request, FetchError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = url_of(upstream)?;
    let seconds = Duration::from_secs;
    request
        .extensions_mut()
        .insert(Timeouts::new().connect(seconds(1)).first_byte(seconds(2)).between_bytes(seconds(2)));
    Ok(request)
}

fn url_of(upstream: &str) -> Result<Uri, FetchError> {
    let url = config::var(upstream).ok_or(FetchError::Invalid("upstream: it is not configured"))?;
    url.parse().map_err(|_| FetchError::Invalid("URI"))
}

/// Method, headers and body as they are, and the same for the response: neither is ever held whole.
fn pass_on(mut request: Request) -> Result<Response, FetchError> {
    let path_and_query = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let rest = path_and_query.strip_prefix("/proxy").unwrap_or(path_and_query);
    let mut url = url_of("greetings")?.into_parts();
    url.path_and_query = Some(rest.parse().map_err(|_| FetchError::Invalid("path"))?);
    *request.uri_mut() = Uri::from_parts(url).map_err(|_| FetchError::Invalid("URI"))?;
    fetch(request)
}

#[cfg(test)]
mod tests {
    use guest_sdk::{RequestBuilder, WaitedFor, testing};

    use super::*;

    const UPSTREAMS: [(&str, &str); 2] =
        [("greetings", "http://greetings.example/hi"), ("weather", "http://weather.example/")];

    fn ask_for(uri: &str) -> (u16, String) {
        let mut response = ask(RequestBuilder::new().uri(uri).body(Body::empty()).expect("a request"));
        (response.status().as_u16(), response.body_mut().text().expect("text"))
    }

    #[test]
    fn puts_both_answers_together() {
        let _config = testing::set_config(UPSTREAMS);
        let _fetch = testing::on_fetch(|request| match request.uri().host() {
            Some("greetings.example") => Ok("good morning\n".into_response()),
            Some("weather.example") => Ok("rain\n".into_response()),
            other => panic!("nobody is {other:?}"),
        });
        assert_eq!(ask_for("http://guest.example/"), (200, "good morning\nrain\n".to_owned()));
    }

    #[test]
    fn one_that_takes_too_long_is_504_and_one_that_is_not_there_502() {
        let _config = testing::set_config(UPSTREAMS);
        {
            let _fetch = testing::on_fetch(|_| Err(FetchError::TimedOut(WaitedFor::FirstByte)));
            assert_eq!(ask_for("http://guest.example/").0, 504);
        }
        let _fetch = testing::on_fetch(|_| Err(FetchError::Refused));
        let (status, text) = ask_for("http://guest.example/");
        assert_eq!((status, text.contains("refuses connections")), (502, true), "{text}");
    }

    #[test]
    fn a_response_that_breaks_off_is_502() {
        let _config = testing::set_config(UPSTREAMS);
        let _fetch = testing::on_fetch(|_| {
            Ok(Body::stream(|writer| {
                writer.write_all(b"half")?;
                Err(FetchError::Incomplete.into())
            })
            .into_response())
        });
        assert_eq!(ask_for("http://guest.example/").0, 502);
    }

    #[test]
    fn passes_path_query_and_body_on() {
        let _config = testing::set_config(UPSTREAMS);
        let _fetch = testing::on_fetch(|request| {
            assert_eq!(request.uri(), "http://greetings.example/a/b?c=d");
            Ok(request.into_body().into_response())
        });
        let request = RequestBuilder::new()
            .method("POST")
            .uri("http://guest.example/proxy/a/b?c=d")
            .body(Body::new("what goes in"));
        assert_eq!(ask(request.expect("a request")).into_body().text().expect("text"), "what goes in");
    }

    #[test]
    fn says_what_is_not_configured() {
        assert_eq!(
            ask_for("http://guest.example/"),
            (502, "the outgoing request has no valid upstream: it is not configured\n".to_owned())
        );
    }
}
