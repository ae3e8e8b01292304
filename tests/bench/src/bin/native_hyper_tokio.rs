//! The same handler on hyper and Tokio's multi-threaded runtime, as hyper's own examples have it: `native_hyper_tokio ADDR`.
#![allow(clippy::print_stdout, reason = "the bench reads the address from the first line")]

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

fn main() {
    let addr = std::env::args().nth(1).expect("usage: native_hyper_tokio ADDR");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(addr).await.expect("the address is free");
        println!("listening on {}", listener.local_addr().expect("bound"));
        loop {
            let (stream, _peer) = listener.accept().await.expect("accept failed");
            stream.set_nodelay(true).expect("TCP has nodelay");
            tokio::spawn(async move {
                let service = service_fn(|_req| async {
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"Hello World!"))))
                });
                // How a connection ends is the load generator's business.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}
