//! Sends four bytes, and says so in `content-length`, with the status that is its query (`/?204`).
//!
//! The host must send no content where there can be none (RFC 9110: 204, 205, 304, and any answer to HEAD), no `content-length` with 204 and
//! none but 0 with 205, must refuse 1xx and what is beyond 599 as an answer, and has to keep the connection in order. A status that is none is
//! refused when it is set.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

test_guests::export!(answer);

fn answer(request: &IncomingRequest, responder: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    let status = path.split_once('?').and_then(|(_, status)| status.parse().ok()).unwrap_or(200);
    let length = ("content-length".to_owned(), b"4".to_vec());
    let response = OutgoingResponse::new(Fields::from_list(&[length]).expect("a valid header"));
    if response.set_status_code(status).is_err() {
        return test_guests::answer(responder, "refused\n");
    }
    let body = response.body().expect("the first call");
    ResponseOutparam::set(responder, Ok(response));
    let stream = body.write().expect("the first call");
    // Nobody may want it.
    let _ = stream.blocking_write_and_flush(b"body");
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
