//! Says "ping" to the address that is its query (`/?127.0.0.1:80`) with `std::net`, and answers with all that comes back.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use guest_sdk::{Request, handler};

#[handler]
fn talk(request: Request) -> String {
    ping(request.uri().query().unwrap_or("127.0.0.1:1")).unwrap_or_else(|error| format!("error: {:?}\n", error.kind()))
}

fn ping(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"ping\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
