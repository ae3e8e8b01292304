//! A native handler on astra-server with TLS, which ends the connection after `/close`: `native_astra_tls ADDR`.
#![allow(clippy::print_stdout, reason = "the bench reads the address from the first line")]

#[path = "../certificate.rs"]
mod certificate;

use astra_server::{Body, ConnectionInfo, Request, Response, Server};
use http::HeaderValue;
use http::header::CONNECTION;

fn main() {
    let addr = std::env::args().nth(1).expect("usage: native_astra_tls ADDR");
    let server = Server::default().and_bind_tls(addr, certificate::config()).expect("the address is free");
    println!("listening on https://{}", server.local_addr().expect("bound"));
    let answer = |request: Request, _info: ConnectionInfo| {
        let mut response = Response::new(Body::new("Hello World!"));
        if request.uri().path() == "/close" {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    };
    server.serve(answer).expect("serve failed");
}
