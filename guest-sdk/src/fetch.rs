//! A blocking HTTP client, over `wasi:http/outgoing-handler`.

use std::{error::Error, fmt, io};

use crate::{Request, Response};

/// Sends a request and waits for the head of its response; the body is then read as it comes.
///
/// The URI must be absolute. Redirects are not followed. A guest may call out only where the host grants it; until astra-host can grant
/// that, every call is [`FetchError::Denied`].
///
/// ```no_run
/// # use guest_sdk::{fetch, Body, RequestBuilder};
/// let request = RequestBuilder::new().uri("https://example.com/").body(Body::empty())?;
/// let text = fetch(request)?.into_body().text()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// See [`FetchError`]. Natively always [`FetchError::NotInGuest`].
pub fn fetch(request: Request) -> Result<Response, FetchError> {
    #[cfg(target_family = "wasm")]
    return crate::wasm::fetch(request);
    #[cfg(not(target_family = "wasm"))]
    {
        drop(request);
        Err(FetchError::NotInGuest)
    }
}

/// Why [`fetch()`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The host does not let this guest call out, or not to there.
    Denied,
    /// The request cannot be sent: its URI is not absolute, or its method or a header is refused.
    Invalid(&'static str),
    /// No response came. The text is the host's: an error code of `wasi:http`.
    Failed(String),
    /// The request body could not be read or sent, and no response came.
    Body(io::Error),
    /// This is not a guest: natively there is no host to ask.
    NotInGuest,
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => f.write_str("the host does not grant this outgoing request"),
            Self::Invalid(what) => write!(f, "the outgoing request has no valid {what}"),
            Self::Failed(code) => write!(f, "the outgoing request failed: {code}"),
            Self::Body(_) => f.write_str("the body of the outgoing request could not be sent"),
            Self::NotInGuest => f.write_str("`fetch` works only inside a guest"),
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
    use crate::{Body, RequestBuilder};

    #[test]
    fn natively_fetch_says_that_there_is_no_host() {
        let request = RequestBuilder::new().uri("http://example.com/").body(Body::empty()).expect("a request");
        assert!(matches!(fetch(request), Err(FetchError::NotInGuest)));
    }
}
