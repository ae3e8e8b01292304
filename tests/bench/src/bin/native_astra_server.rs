//! A native handler on astra-server: `native_astra_server ADDR`. Like the others it refuses nobody: there is room to wait
//! for each connection.
#![allow(clippy::print_stdout, reason = "the bench reads the address from the first line")]

use std::time::Duration;

use astra_server::{Body, Response, Server};

/// As many as there may be by default.
const CONNECTIONS: usize = 16_384;

fn main() {
    let addr = std::env::args().nth(1).expect("usage: native_astra_server ADDR");
    let server = Server::bind(addr).queue(CONNECTIONS, Duration::from_secs(60));
    println!("listening on {}", server.local_addr().expect("bound"));
    server.serve(|_req, _info| Response::new(Body::new("Hello World!"))).expect("serve failed");
}
