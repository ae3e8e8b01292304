//! Drops an exchange with the URL that is its query at the stage that its path names, when its own request's body says so, and answers 200
//! when that has ended.
//!
//! `/future` before the head came, `/response` after it, `/body` after the first byte, `/request-body` with half of the request's body sent.
//! The host must end the exchange each time: the upstream sees the connection break, and a request that is dropped in the middle is never
//! complete.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::{
        outgoing_handler::handle,
        types::{IncomingRequest, Method, ResponseOutparam},
    },
};

test_guests::export!(drop_early);

fn drop_early(request: &IncomingRequest, responder: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    let url = out::url(request);
    let own = request.consume().expect("the first call");
    let signal = own.stream().expect("the first call");
    let wait = || assert_eq!(signal.blocking_read(1).map(|bytes| bytes.len()).ok(), Some(1));
    let get = || handle(out::request(&Method::Get, &url, &[]), None).expect("a valid request");
    match path.split('?').next() {
        Some("/future") => {
            let future = get();
            wait();
            assert!(future.get().is_none() && !future.subscribe().ready(), "nobody has answered");
            drop(future);
        }
        Some("/response") => {
            let response = out::wait(&get()).expect("a head");
            wait();
            drop(response);
        }
        Some("/body") => {
            let response = out::wait(&get()).expect("a head");
            let body = response.consume().expect("the first call");
            let stream = body.stream().expect("the first call");
            assert_eq!(stream.blocking_read(1).map(|bytes| bytes.len()).ok(), Some(1));
            wait();
            drop((stream, body));
        }
        _ => {
            let outgoing = out::request(&Method::Post, &url, &[]);
            let body = outgoing.body().expect("the first call");
            let future = handle(outgoing, None).expect("a valid request");
            let stream = body.write().expect("the first call");
            stream.blocking_write_and_flush(b"half of it").expect("accepted");
            wait();
            drop(stream);
            drop(body);
            assert!(out::wait(&future).is_err(), "half a request was answered");
        }
    }
    // The instance lives on until the upstream has seen it, so that it was the drop that ended the exchange.
    out::read_stream(&signal, drop).expect("a whole body");
    drop(signal);
    test_guests::answer(responder, "dropped\n");
}
