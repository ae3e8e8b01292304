//! Connects to the address that is its query (`/?127.0.0.1:80`) with `std::net`, and says what came of it.

use std::net::TcpStream;

use guest_sdk::{Request, handler};

#[handler]
fn connect(request: Request) -> String {
    match TcpStream::connect(request.uri().query().unwrap_or("127.0.0.1:1")) {
        Ok(_) => "connected\n".into(),
        Err(error) => format!("error: {:?}\n", error.kind()),
    }
}
