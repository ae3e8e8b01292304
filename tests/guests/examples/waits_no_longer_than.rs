//! Gets the URL that is its query with one time-out of 200 ms: `/connect?…`, `/first-byte?…`, `/between-bytes?…`; then reads it all.
//!
//! The host must end it with `connection-timeout` where nobody takes the connection, and with `connection-read-timeout` (RFC 9209 section
//! 2.3.10) where no head comes, or where a body stands still, then by `http-error-code`. The options can be read back.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::{
        outgoing_handler::handle,
        types::{IncomingRequest, Method, RequestOptions, ResponseOutparam},
    },
};

test_guests::export!(get);

const AFTER: Option<u64> = Some(200_000_000);

fn get(request: &IncomingRequest, responder: ResponseOutparam) {
    let options = RequestOptions::new();
    let path = request.path_with_query().unwrap_or_default();
    let (set, is_set) = match path.split('?').next() {
        Some("/connect") => (options.set_connect_timeout(AFTER), options.connect_timeout() == AFTER),
        Some("/first-byte") => (options.set_first_byte_timeout(AFTER), options.first_byte_timeout() == AFTER),
        _ => (options.set_between_bytes_timeout(AFTER), options.between_bytes_timeout() == AFTER),
    };
    let sent = handle(out::request(&Method::Get, &out::url(request), &[]), Some(options));
    let text = match sent.and_then(|future| out::wait(&future)) {
        Ok(response) => out::read(&response),
        Err(code) => format!("{code:?}"),
    };
    test_guests::answer(responder, &format!("set {}, read back {is_set}\n{text}\n", set.is_ok()));
}
