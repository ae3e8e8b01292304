//! The same on hyper and Tokio with tokio-rustls: `native_hyper_tls ADDR`.
#![allow(clippy::print_stdout, reason = "the bench reads the address from the first line")]

#[path = "../certificate.rs"]
mod certificate;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONNECTION;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello World!")));
    if request.uri().path() == "/close" {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn main() {
    let addr = std::env::args().nth(1).expect("usage: native_hyper_tls ADDR");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(addr).await.expect("the address is free");
        println!("listening on https://{}", listener.local_addr().expect("bound"));
        let acceptor = TlsAcceptor::from(Arc::new(certificate::config()));
        loop {
            let (stream, _peer) = listener.accept().await.expect("accept failed");
            stream.set_nodelay(true).expect("TCP has nodelay");
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // How a connection ends is the load generator's business.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
}
