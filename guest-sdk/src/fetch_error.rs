//! Why an outgoing request failed, as far as WASI 0.2 `wasi:http` tells (its `error-code`), and what a gateway answers then.

use std::{error::Error, fmt, io};

use http::StatusCode;

use crate::BodyError;

/// Why [`fetch()`](crate::fetch()), or reading the body of a response to it, failed.
///
/// As the error of a handler it answers with its [`status`](Self::status).
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The host does not let this guest call out, or not to there, or not to the address that the name stands for.
    Denied,
    /// The request cannot be sent: what is named here is missing, wrong, or refused by the host.
    Invalid(&'static str),
    /// The name could not be looked up. The text is the resolver's code.
    Dns(String),
    /// Nobody listens there.
    Refused,
    /// There is no way to there.
    Unreachable,
    /// No TLS connection: the certificate is not trusted, say. The text says why.
    Tls(String),
    /// Time was up: the request's own ([`Timeouts`](crate::fetch::Timeouts)) or the host's.
    TimedOut(WaitedFor),
    /// Something is larger, or there are more, than the host (or a limit of this guest's own) allows.
    Limit(&'static str),
    /// The server does not speak HTTP as it should.
    Protocol(&'static str),
    /// The connection ended before the response did.
    Incomplete,
    /// Reading the request's own body failed.
    Body(io::Error),
    /// Anything else. The text is the host's.
    Failed(String),
    /// This is not a guest: natively only tests answer, with [`testing::on_fetch`](crate::testing::on_fetch).
    NotInGuest,
}

/// What a request waited for when its time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitedFor {
    /// The address of a name.
    Lookup,
    /// A connection.
    Connection,
    /// Room to send in: the server does not read.
    Sending,
    /// The head of the response.
    FirstByte,
    /// More of the response's body.
    NextBytes,
}

impl FetchError {
    /// What to answer to one's own client: 504 if time was up, 503 at a limit on connections, 500 if it is not the server's fault but this
    /// guest's or its configuration's, else 502 (RFC 9110 15.6).
    pub fn status(&self) -> StatusCode {
        match self {
            Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Limit(Self::CONNECTIONS) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied | Self::Invalid(_) | Self::Body(_) | Self::NotInGuest => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// Why reading a response's body failed, if that was what `error` is about.
    ///
    /// ```
    /// # use guest_sdk::{FetchError, StatusCode};
    /// # let error = std::io::Error::from(FetchError::Incomplete);
    /// let status = FetchError::of(&error).map_or(StatusCode::INTERNAL_SERVER_ERROR, FetchError::status);
    /// # assert_eq!(status, 502);
    /// ```
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What [`Limit`](Self::Limit) names at the host's limit on connections.
    pub(crate) const CONNECTIONS: &'static str = "connections";
}

/// For a body that fails: a test's, or one that is made of another response.
impl From<FetchError> for io::Error {
    fn from(error: FetchError) -> Self {
        let kind = match error {
            FetchError::TimedOut(_) => io::ErrorKind::TimedOut,
            FetchError::Incomplete => io::ErrorKind::UnexpectedEof,
            FetchError::Denied => io::ErrorKind::PermissionDenied,
            FetchError::Refused => io::ErrorKind::ConnectionRefused,
            FetchError::Unreachable => io::ErrorKind::HostUnreachable,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// For a response that was to be collected: `fetch(request)?.into_body().text()?`.
impl From<BodyError> for FetchError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { .. } => Self::Limit("the response's body"),
            BodyError::Read(error) => error.downcast().unwrap_or_else(|error| Self::Failed(error.to_string())),
            BodyError::Invalid(_) => Self::Protocol("its response is not what was expected"),
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str(
                "the host does not grant this outgoing request: grant it with `outbound = [\"https://api.example.com\"]` or `--outbound`; \
                 a name that leads to a private address also needs `private = true` (`--outbound-private`)",
            ),
            Self::Invalid(what) => write!(f, "the outgoing request has no valid {what}"),
            Self::Dns(code) => write!(f, "the upstream's name could not be looked up: {code}"),
            Self::Refused => f.write_str("the upstream refuses connections: is it running?"),
            Self::Unreachable => f.write_str("there is no way to the upstream"),
            Self::Tls(reason) => write!(f, "no TLS connection to the upstream: {reason}"),
            Self::TimedOut(waited_for) => {
                let what = match waited_for {
                    WaitedFor::Lookup => "the look-up of its name",
                    WaitedFor::Connection => "connecting",
                    WaitedFor::Sending => "it to take the request",
                    WaitedFor::FirstByte => "the head of its response",
                    WaitedFor::NextBytes => "more of its response",
                };
                write!(f, "the upstream was too slow: time was up waiting for {what}")
            }
            Self::Limit(what) => write!(f, "beyond the limit on {what}"),
            Self::Protocol(what) => write!(f, "the upstream does not speak HTTP as it should: {what}"),
            Self::Incomplete => f.write_str("the upstream's response is not complete"),
            Self::Body(_) => f.write_str("the body of the outgoing request could not be read"),
            Self::Failed(text) => write!(f, "the outgoing request failed: {text}"),
            Self::NotInGuest => {
                f.write_str("natively nobody answers a `fetch`: in a test, say who does with `guest_sdk::testing::on_fetch`")
            }
        }
    }
}

impl Error for FetchError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Body(error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, IntoResponse, Response};

    #[test]
    fn a_handler_that_returns_it_answers_like_a_gateway() {
        let answer = |error: FetchError| Err::<Response, _>(error).into_response().status().as_u16();
        assert_eq!(answer(FetchError::TimedOut(WaitedFor::FirstByte)), 504);
        assert_eq!(answer(FetchError::Refused), 502);
        assert_eq!(answer(FetchError::Limit(FetchError::CONNECTIONS)), 503);
        assert_eq!(answer(FetchError::Limit("the response's headers")), 502);
        assert_eq!(answer(FetchError::Denied), 500);
    }

    #[test]
    fn a_response_that_breaks_off_is_the_servers_fault_not_the_clients() {
        let mut body = Body::wrap_reader(Breaks);
        let error = body.text().expect_err("it breaks off");
        assert_eq!(error.status(), 502);
        assert_eq!(error.to_string(), "the body could not be read: the upstream's response is not complete");
        assert!(error.source().is_none(), "nothing is told twice");
        let BodyError::Read(error) = error else { panic!("not a reading error") };
        assert!(matches!(FetchError::of(&error), Some(FetchError::Incomplete)));
        assert_eq!(Err::<Response, _>(error).into_response().status(), 502);
    }

    struct Breaks;

    impl io::Read for Breaks {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(FetchError::Incomplete.into())
        }
    }

    #[test]
    fn why_a_response_broke_off_is_not_lost_when_it_is_collected() {
        let error: FetchError = Body::wrap_reader(Breaks).text().expect_err("it breaks off").into();
        assert!(matches!(error, FetchError::Incomplete), "{error:?}");
        let error: FetchError = Body::new("12345").text_up_to(4).expect_err("too large").into();
        assert!(matches!(error, FetchError::Limit("the response's body")), "{error:?}");
    }

    #[test]
    fn a_denial_says_what_would_grant_it() {
        let text = FetchError::Denied.to_string();
        for words in ["outbound = [\"", "`--outbound`", "`private = true` (`--outbound-private`)"] {
            assert!(text.contains(words), "{text}");
        }
    }
}
