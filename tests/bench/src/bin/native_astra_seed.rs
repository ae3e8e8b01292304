//! The same handler on the seed, the `astra` crate: `native_astra_seed ADDR`.
#![allow(clippy::print_stdout, reason = "the bench reads the address from the first line")]

use astra::{Body, Response, Server};

fn main() {
    let addr = std::env::args().nth(1).expect("usage: native_astra_seed ADDR");
    let server = Server::bind(addr);
    println!("listening on {}", server.local_addr().expect("bound"));
    server.serve(|_req, _info| Response::new(Body::new("Hello World!"))).expect("serve failed");
}
