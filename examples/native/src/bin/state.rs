//! A counter that all requests share, whichever thread runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use astra_server::{Body, Request, Response, Server};

fn main() {
    let counter = Arc::new(AtomicUsize::new(1));

    Server::bind("127.0.0.1:3000")
        // Pass a handle to the counter along with the request.
        .serve(move |req, _info| handle(&counter, &req))
        .expect("serve failed");
}

fn handle(counter: &AtomicUsize, req: &Request) -> Response {
    let n = counter.fetch_add(1, Ordering::SeqCst);
    Response::new(Body::new(format!("Request #{n}: {}", req.uri().path())))
}
