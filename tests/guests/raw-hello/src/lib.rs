//! Hello over the bare bindings, as their own example has it.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Hello);

struct Hello;

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(_request: IncomingRequest, responder: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the first call");
        ResponseOutparam::set(responder, Ok(response));
        let stream = body.write().expect("the first call");
        stream.blocking_write_and_flush(b"Hello World!").expect("a client that reads");
        drop(stream);
        OutgoingBody::finish(body, None).expect("a finished body");
    }
}
