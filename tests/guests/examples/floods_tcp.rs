//! Sends to the address that is its query (`/?127.0.0.1:80`) until nothing more is taken, and leaves it at that.

use std::{
    io::{ErrorKind, Write as _},
    net::TcpStream,
};

use guest_sdk::{Request, handler};

#[handler]
fn flood(request: Request) -> String {
    let mut stream = TcpStream::connect(request.uri().query().unwrap_or("127.0.0.1:1")).expect("it is granted");
    stream.set_nonblocking(true).expect("it is open");
    let mut sent = 0;
    let full = loop {
        match stream.write(&[0; 4096]) {
            Ok(taken) => sent += taken,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock, "{full}");
    // Dropping it would wait for what is under way.
    std::mem::forget(stream);
    format!("sent {sent}\n")
}
