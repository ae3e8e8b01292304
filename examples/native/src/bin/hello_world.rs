//! The smallest server: one closure that answers every request.

use astra_server::{Body, Response, Server};

fn main() {
    Server::bind("127.0.0.1:3000").serve(|_req, _info| Response::new(Body::new("Hello World!"))).expect("serve failed");
}
