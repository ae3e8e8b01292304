//! Makes responses, thousands of them, with large headers on `/headers`, and as much of a body each as the host takes; keeps them all,
//! and says with the last one how much it could write.
#![cfg(target_family = "wasm")]

use std::mem::forget;

use test_guests::wasip2::http::types::{Fields, IncomingRequest, OutgoingResponse, ResponseOutparam};

test_guests::export!(hoard);

fn hoard(request: &IncomingRequest, responder: ResponseOutparam) {
    let has_headers = request.path_with_query().as_deref() == Some("/headers");
    let piece = vec![b'x'; 64 << 10];
    let mut written = 0;
    for _ in 0..1000 {
        let fields = Fields::new();
        if has_headers {
            fields.append("x-large", &piece[..32 << 10]).expect("a header");
        }
        let response = OutgoingResponse::new(fields);
        let body = response.body().expect("the first call");
        let stream = body.write().expect("the first call");
        while let Ok(room @ 1..) = stream.check_write() {
            let length = piece.len().min(room as usize);
            stream.write(&piece[..length]).expect("there is room");
            written += length;
        }
        forget((stream, body, response));
    }
    test_guests::answer(responder, &format!("{written}"));
}
