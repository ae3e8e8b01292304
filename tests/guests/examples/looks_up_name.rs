//! Looks up the host name that is its query (`/?localhost`) with `std::net`, and says what came of it.

use std::net::ToSocketAddrs;

use guest_sdk::{Request, handler};

#[handler]
fn look_up(request: Request) -> String {
    match (request.uri().query().unwrap_or("localhost"), 80).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| format!("{}\n", address.ip())).collect(),
        Err(error) => format!("error: {:?}\n", error.kind()),
    }
}
