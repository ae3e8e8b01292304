//! Greets clients by the address they connect from.

use astra_server::{Body, ConnectionInfo, Request, Response, ResponseBuilder, Server};

fn main() {
    Server::bind("127.0.0.1:3000").serve(handle).expect("serve failed");
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn handle(_req: Request, info: ConnectionInfo) -> Response {
    match info.peer_addr() {
        Some(peer) => Response::new(Body::new(format!("Hello {}!", peer.ip()))),
        // The client is gone already, or it is not a TCP connection.
        None => ResponseBuilder::new().status(500).body(Body::empty()).expect("500 is a valid status"),
    }
}
