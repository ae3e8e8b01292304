//! A blocking HTTP client, over `wasi:http/outgoing-handler`.
//!
//! What is the same natively and in a guest: the functions, and the time-outs that a request carries. Natively [`crate::testing`] answers.

use std::time::Duration;

use http::uri::Scheme;

use crate::{FetchError, Request, Response};

#[cfg(not(target_family = "wasm"))]
use crate::testing as sent_by;
#[cfg(target_family = "wasm")]
use crate::wasm as sent_by;

/// Sends a request and waits for the head of its response; the body is then read as it comes.
///
/// The URI must be absolute, with the scheme `http` or `https`. Redirects are not followed. A guest may call out only where the host grants it; everywhere else this is
/// [`FetchError::Denied`].
///
/// ```no_run
/// # use guest_sdk::{fetch, Body, RequestBuilder};
/// let request = RequestBuilder::new().uri("https://api.example.com/").body(Body::empty())?;
/// let text = fetch(request)?.into_body().text()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A handler may return the error: the client is then answered with its [`status`](FetchError::status), and the log says what it was.
///
/// # Bodies
///
/// Both stream: neither is ever held whole. A server may answer before it has read all of the request; the rest is then sent while the
/// response is read, so a handler that passes a request on, and returns what comes back, can never stand still between two ends that both
/// wait. Only [`Body::stream`](crate::Body::stream) is written to its end first. A response that is dropped ends its exchange, even if
/// some of the request is still to be sent.
///
/// When reading the response's body fails, the [`std::io::Error`] has a [`FetchError`] in it: [`FetchError::of`].
///
/// # Errors
///
/// See [`FetchError`]. Natively [`FetchError::NotInGuest`], unless a test has said who answers ([`testing::on_fetch`](crate::testing::on_fetch)).
pub fn fetch(request: Request) -> Result<Response, FetchError> {
    start(request)?.wait()
}

/// Sends a request and does not wait for its response: for several at once.
///
/// ```no_run
/// # use guest_sdk::{fetch, Body, RequestBuilder};
/// # let [one, two] = ["one", "two"].map(|uri| RequestBuilder::new().uri(uri).body(Body::empty()).unwrap());
/// let (one, two) = (fetch::start(one)?, fetch::start(two)?);
/// let (one, two) = (one.wait()?, two.wait()?);
/// # Ok::<(), guest_sdk::FetchError>(())
/// ```
///
/// Of the request's body as much is sent as the host takes at once, and the rest in [`Pending::wait`].
///
/// # Errors
///
/// As of [`fetch()`]; most of them come from [`Pending::wait`].
pub fn start(request: Request) -> Result<Pending, FetchError> {
    let (Some(scheme), Some(_)) = (request.uri().scheme(), request.uri().authority()) else {
        return Err(FetchError::Invalid("absolute URI"));
    };
    if ![Scheme::HTTP, Scheme::HTTPS].contains(scheme) {
        return Err(FetchError::Invalid("URI: its scheme is neither `http` nor `https`"));
    }
    sent_by::start(request).map(Pending)
}

/// A request that was sent: see [`start`]. Dropped, it is given up.
#[derive(Debug)]
#[must_use = "a request that nobody waits for is given up"]
pub struct Pending(sent_by::Pending);

impl Pending {
    /// Waits for the head of the response.
    ///
    /// # Errors
    ///
    /// See [`FetchError`].
    pub fn wait(self) -> Result<Response, FetchError> {
        self.0.wait()
    }
}

/// How long a [`fetch()`] may wait, if less than the host lets it. It goes into the request's extensions:
///
/// ```
/// # use std::time::Duration;
/// # use guest_sdk::{fetch::Timeouts, Body, RequestBuilder};
/// let request = RequestBuilder::new()
///     .uri("https://api.example.com/")
///     .extension(Timeouts::new().connect(Duration::from_secs(1)).first_byte(Duration::from_secs(5)))
///     .body(Body::empty())?;
/// # Ok::<(), guest_sdk::http::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For a connection.
    pub connect: Option<Duration>,
    /// From there to the head of the response.
    pub first_byte: Option<Duration>,
    /// From one piece of the response's body to the next.
    pub between_bytes: Option<Duration>,
}

impl Timeouts {
    /// None of our own: the host's count.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a connection.
    pub fn connect(self, after: Duration) -> Self {
        Self { connect: Some(after), ..self }
    }

    /// From there to the head of the response.
    pub fn first_byte(self, after: Duration) -> Self {
        Self { first_byte: Some(after), ..self }
    }

    /// From one piece of the response's body to the next.
    pub fn between_bytes(self, after: Duration) -> Self {
        Self { between_bytes: Some(after), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, RequestBuilder};

    #[test]
    fn a_uri_that_nobody_can_be_asked_by_is_the_uris_fault() {
        for (uri, told) in [
            ("/path", "the outgoing request has no valid absolute URI"),
            ("ftp://a/", "the outgoing request has no valid URI: its scheme is neither `http` nor `https`"),
            ("HTTPS://a/", "natively nobody answers"),
        ] {
            let request = RequestBuilder::new().uri(uri).body(Body::empty()).expect("a request");
            let error = fetch(request).expect_err("nobody answers").to_string();
            assert!(error.starts_with(told), "{uri}: {error}");
        }
    }
}
