//! Guests that misbehave in one way each: `examples/*.rs`, named by what they do. The host's tests serve them.
//!
//! Most are written against guest-sdk. Where that is too polite they use the bindings, through what is here.
#![cfg(target_family = "wasm")]

pub mod out;

pub use wasip2;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// Exports a function of `IncomingRequest` and `ResponseOutparam` as the handler.
#[macro_export]
macro_rules! export {
    ($handler:ident) => {
        struct Guest;
        impl $crate::wasip2::exports::http::incoming_handler::Guest for Guest {
            fn handle(
                request: $crate::wasip2::http::types::IncomingRequest,
                responder: $crate::wasip2::http::types::ResponseOutparam,
            ) {
                $handler(&request, responder);
            }
        }
        $crate::wasip2::http::proxy::export!(Guest with_types_in $crate::wasip2);
    };
}

/// Sends a head. Headers the host forbids are left out.
pub fn head(responder: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        let _ = fields.append(name, value.as_bytes());
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).expect("a valid status");
    let body = response.body().expect("the first call");
    ResponseOutparam::set(responder, Ok(response));
    body
}

/// Writes at most 4 KiB and flushes.
pub fn write(body: &OutgoingBody, text: &str) {
    let stream = body.write().expect("the first call");
    stream.blocking_write_and_flush(text.as_bytes()).expect("a client that reads");
}

/// Sleeps until what was written has surely left the host; not at all if the path is `/at-once`.
pub fn let_it_leave(request: &IncomingRequest) {
    if request.path_with_query().as_deref() != Some("/at-once") {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Answers 200 with `text`, whole.
pub fn answer(responder: ResponseOutparam, text: &str) {
    let body = head(responder, 200, &[]);
    write(&body, text);
    OutgoingBody::finish(body, None).expect("a finished body");
}

/// The value of `name=` in the query.
pub fn query(path_and_query: Option<String>, name: &str) -> Option<String> {
    let path_and_query = path_and_query?;
    let mut pairs = path_and_query.split_once('?')?.1.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}
