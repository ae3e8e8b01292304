//! Listens with TCP (`/tcp?127.0.0.1:0`) or binds UDP (`/udp?…`) with `std::net`, and says what came of it.

use std::net::{TcpListener, UdpSocket};

use guest_sdk::{Request, handler};

#[handler]
fn open(request: Request) -> String {
    let address = request.uri().query().unwrap_or("127.0.0.1:0");
    let opened = match request.uri().path() {
        "/udp" => UdpSocket::bind(address).map(drop),
        _ => TcpListener::bind(address).map(drop),
    };
    match opened {
        Ok(()) => "open\n".into(),
        Err(error) => format!("error: {:?}\n", error.kind()),
    }
}
