//! A server in this process, started once, whose handler says in `x-seen` what it was asked.

use std::{
    fmt::Write,
    io::ErrorKind,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU8, Ordering},
    },
};

use astra_server::{Body, ConnectionInfo, Handle, Request, Response, ResponseBuilder, Server};

/// What a handler does with bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reads them, then answers.
    Read,
    /// Answers without a look.
    Ignore,
    /// Answers with the body as it comes.
    Echo,
}

impl Mode {
    #[must_use]
    pub fn of(byte: u8) -> Self {
        [Self::Read, Self::Ignore, Self::Echo][usize::from(byte % 3)]
    }
}

/// What the one connection that there is at a time wants.
static MODE: AtomicU8 = AtomicU8::new(0);

/// Where a server in `mode` listens.
#[must_use]
pub fn server(mode: Mode) -> &'static SocketAddr {
    static SERVER: OnceLock<(Handle, SocketAddr)> = OnceLock::new();
    MODE.store(mode as u8, Ordering::SeqCst);
    let (_, address) = SERVER.get_or_init(|| {
        // An abstract name leaves no file behind.
        let address = SocketAddr::from_abstract_name(format!("astra-fuzz-{}", process::id())).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("binds");
        let server = Server::default().and_listen_unix(listener).expect("listens");
        (server.start_service(tell).expect("starts"), address)
    });
    address
}

/// Method, target, what became of the body, the body, trailers; all but the third in hexadecimal.
#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn tell(mut request: Request, _info: ConnectionInfo) -> Response {
    let mode = Mode::of(MODE.load(Ordering::SeqCst));
    let mut seen = format!("{} {}", hex(request.method().as_str()), hex(request.uri().to_string()));
    if mode == Mode::Read {
        let mut body = Vec::new();
        let mut end = "whole";
        for chunk in request.body_mut() {
            match chunk {
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(error) => end = if error.kind() == ErrorKind::InvalidData { "malformed" } else { "cut" },
            }
        }
        let _ = write!(seen, " {end} {}", hex(body));
        for (name, value) in request.body_mut().trailers().iter().flatten() {
            let _ = write!(seen, " {}:{}", hex(name), hex(value));
        }
    }
    let body = match mode {
        Mode::Echo => std::mem::replace(request.body_mut(), Body::empty()),
        Mode::Read | Mode::Ignore => Body::new("seen"),
    };
    ResponseBuilder::new().header("x-seen", seen).body(body).expect("valid")
}

/// In quotes, lest nothing be seen of nothing.
fn hex(bytes: impl AsRef<[u8]>) -> String {
    let digits: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("'{digits}'")
}

/// The reverse of what [`tell`] does to each part.
#[must_use]
pub fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim_matches('\'').as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal")).collect()
}
