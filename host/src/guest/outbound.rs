//! Outgoing requests of guests: refused, until granting them is built.
//!
//! The hooks that wasmtime-wasi-http asks, on the worker that runs the guest. Nothing here may touch the network.

use http::{HeaderName, Request, Response, header};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

/// The sending of a body, which goes on after the head of the answer has come.
type Sending = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// What guests may send out: nothing.
pub(crate) struct Outbound;

impl WasiHttpHooks for Outbound {
    /// What concerns one connection is between the client and the host (RFC 9110 section 7.6.1): guests neither set it nor see it
    /// in their requests. wasmtime-wasi-http's list lacks `te`. The default of this method builds an `Arc` per header.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        *name == header::TE || DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _errors: Sending,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Sending)>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}
