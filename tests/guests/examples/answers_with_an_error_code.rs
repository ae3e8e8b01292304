//! Answers with the error code that its path names.
//!
//! The host must make the status of it that says whose fault it was: 502 for what lies behind the guest, 504 for its time-outs, 413 for a
//! request that is too large, 500 for the guest itself; and the client learns no more than that.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{DnsErrorPayload, ErrorCode, IncomingRequest, ResponseOutparam};

test_guests::export!(refuse);

fn refuse(request: &IncomingRequest, responder: ResponseOutparam) {
    let code = match request.path_with_query().as_deref() {
        Some("/dns") => ErrorCode::DnsError(DnsErrorPayload { rcode: Some("secret".into()), info_code: None }),
        Some("/refused") => ErrorCode::ConnectionRefused,
        Some("/first-byte") => ErrorCode::HttpResponseTimeout,
        Some("/too-large") => ErrorCode::HttpRequestBodySize(Some(1)),
        _ => ErrorCode::InternalError(Some("secret".into())),
    };
    ResponseOutparam::set(responder, Err(code));
}
