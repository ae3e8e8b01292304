//! Sends back what it is sent, by bindings of the last draft of WASI 0.3, which Spin's guests import too.
#![cfg(target_family = "wasm")]
#![allow(missing_docs, reason = "what `export!` makes")]

use wasip3::{
    http::types::{ErrorCode, Fields, Request, Response},
    wit_future,
};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (_, read_well) = wit_future::new(|| Ok(()));
        let (body, trailers) = Request::consume_body(request, read_well);
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        Ok(response)
    }
}
