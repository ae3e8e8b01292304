//! What an [astra-host](https://github.com/astra-host/astra-host) guest is written against.
//!
//! A guest answers HTTP requests. It is plain blocking code: a function from [`Request`] to [`Response`], with the types of the
//! [`http`] crate and bodies that are [`std::io::Read`] and [`std::io::Write`]. A first guest is a package with
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [dependencies]
//! guest-sdk = "0.1"
//! ```
//!
//! and this `src/lib.rs`:
//!
//! ```
//! use guest_sdk::{handler, Body, Request, Response};
//!
//! #[handler]
//! fn hello(_req: Request) -> Response {
//!     Response::new(Body::new("Hello World!"))
//! }
//!
//! # // What a unit test would say:
//! let response = hello(Request::new(Body::empty()));
//! assert_eq!(response.into_body().text().unwrap(), "Hello World!");
//! ```
//!
//! `astra-host run .` builds it for `wasm32-wasip2` and serves it. A handler is an ordinary function: a `#[test]` calls it with a request it
//! has built, as in the last two lines, and `cargo test` runs that on your machine, without Wasm.
//!
//! # What a guest must live with
//!
//! - Each request gets a fresh instance: what is in a `static` is gone with the next request.
//! - Nothing is granted by default: no directory, no environment variable, no [`config`] value, no host to [`fetch()`] from.
//! - Waiting is fine (`std::thread::sleep`, reading a body, files): the host runs other requests meanwhile. All of it counts towards
//!   the request's deadline.
//! - A panic is a trap. Before the head was sent the client gets 500, afterwards the connection is cut.
//! - Bodies stream both ways. What collects a request body has a limit ([`Body::DEFAULT_LIMIT`]).
//! - Headers that concern one connection (`connection`, `transfer-encoding`, `upgrade`…) are the host's: a guest's are left out.
//! - The response head goes out when the handler returns; a [`Body::stream`] is written after that.
//!
//! # Natively
//!
//! Everything compiles and works on the developer's machine. There is no host there, so [`fetch()`] returns [`FetchError::NotInGuest`] and
//! [`config`] is empty, unless a test says what they answer: see [`testing`].
//!
//! # Features
//!
//! - `json`: `Json` and `Body::json`, with serde.
//! - `files` (default): a guest can write files and sockets. One that does not is better off with `default-features = false`: a quarter smaller
//!   and with 14 imports fewer, each of which the host links anew for every request. Reading files, standard output and panic messages
//!   work either way.

pub mod body;
pub mod config;
pub mod fetch;
mod fetch_error;
pub mod response;
pub mod router;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
#[cfg(target_family = "wasm")]
mod wasm;

pub use body::{Body, BodyError};
pub use bytes::Bytes;
pub use fetch::fetch;
pub use fetch_error::{FetchError, WaitedFor};
pub use guest_sdk_macros::handler;
pub use http::{self, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
pub use response::IntoResponse;
#[cfg(feature = "json")]
pub use response::Json;
pub use router::{Params, Router};

/// An HTTP request. Its URI is absolute: scheme, authority, path and query as the client meant them.
pub type Request = http::Request<Body>;

/// An HTTP response.
pub type Response = http::Response<Body>;

/// Builds a response: `ResponseBuilder::new().status(404).body(Body::empty())`.
pub type ResponseBuilder = http::response::Builder;

/// Builds a request, for a test or for [`fetch()`].
pub type RequestBuilder = http::request::Builder;

/// What `#[handler]` expands to: `$serve` is a function of `__private`.
#[doc(hidden)]
#[macro_export]
#[rustfmt::skip] // which never comes to rest over `export!`
macro_rules! __handler {
    ($handler:ident, $serve:ident) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Guest;
            impl $crate::__private::Guest for Guest {
                fn handle(request: $crate::__private::IncomingRequest, responder: $crate::__private::ResponseOutparam) {
                    $crate::__private::$serve($handler, request, responder);
                }
            }
            $crate::__private::wasip2::http::proxy::export!(Guest with_types_in $crate::__private::wasip2);
        };
        // Natively nothing calls the handler but tests: this is its use, and checks its type.
        #[cfg(not(target_family = "wasm"))]
        const _: () = $crate::__private::check(&$handler);
    };
}

#[doc(hidden)]
pub mod __private {
    #[cfg(target_family = "wasm")]
    pub use crate::wasm::{serve, serve_unread};
    #[cfg(target_family = "wasm")]
    pub use wasip2::{
        self,
        exports::http::incoming_handler::Guest,
        http::types::{IncomingRequest, ResponseOutparam},
    };

    #[cfg(not(target_family = "wasm"))]
    pub const fn check<H, R>(_: &H)
    where
        H: Fn(crate::Request) -> R,
        R: crate::IntoResponse,
    {
    }
}
