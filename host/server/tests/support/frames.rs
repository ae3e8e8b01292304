//! HTTP/2 by hand: frames written byte for byte, right or wrong, and what the server's frames say. Header blocks are literals
//! without indexing (RFC 7541 section 6.2.2), so nothing has to be remembered.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::Client;
use super::client::is_end;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const UNKNOWN: u8 = 0xbb;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITIZED: u8 = 0x20;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_FRAME_SIZE: u16 = 5;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

pub(crate) fn ping(payload: &[u8; 8]) -> Vec<u8> {
    frame(PING, 0, 0, payload)
}

pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub(crate) fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(crate) fn data(stream: u32, flags: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(DATA, flags, stream, payload.as_ref())
}

/// A header block.
pub(crate) fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_ref());
        string(&mut block, value.as_ref());
    }
    block
}

/// A string literal (RFC 7541 section 5.2), not Huffman coded.
fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes.len();
    if rest < 127 {
        block.push(rest as u8);
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(rest as u8 | 128);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend(bytes);
}

/// The header block of a whole request.
pub(crate) fn request_fields(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", "test")])
}

/// A request whose body follows.
pub(crate) fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request_fields("POST", path))
}

/// A whole request.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &request_fields("GET", path))
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn is(&self, kind: u8, stream: u32) -> bool {
        (self.kind, self.stream) == (kind, stream)
    }

    /// The code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code"))
    }

    /// The status of a response: h2 puts it first.
    pub(crate) fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        // After the update of a table's size.
        while let [0x20..0x40, rest @ ..] = block {
            block = rest;
        }
        match block {
            // A field of the static table (RFC 7541 appendix A).
            [indexed, ..] if indexed & 0x80 != 0 => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(indexed & 0x7f) - 8]
            }
            // A literal with one of their names.
            [0x48 | 0x08, length, rest @ ..] => {
                let digits = &rest[..usize::from(length & 0x7f)];
                if length & 0x80 == 0 {
                    return std::str::from_utf8(digits).expect("digits").parse().expect("a status");
                }
                huffman_number(digits)
            }
            _ => panic!("no status: {self:?}"),
        }
    }
}

/// Digits only (RFC 7541 appendix B): 0 to 2 have five bits, 3 to 9 have six.
fn huffman_number(bytes: &[u8]) -> u16 {
    let bits: Vec<u16> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))).collect();
    let (mut number, mut rest) = (0, &bits[..]);
    let take = |count: usize, bits: &[u16]| bits[..count].iter().fold(0, |code, bit| code << 1 | bit);
    while rest.len() >= 5 {
        let (length, digit) = match take(5, rest) {
            digit @ 0..=2 => (5, digit),
            _ if rest.len() < 6 => break,
            _ => (6, take(6, rest).wrapping_sub(0b01_0110)),
        };
        if digit > 9 {
            break;
        }
        number = number * 10 + digit;
        rest = &rest[length..];
    }
    number
}

impl Client {
    /// A client whose side of the connection is set up: preface, SETTINGS both ways, both acknowledged.
    pub(crate) fn connect_http2(addr: SocketAddr) -> Client {
        Client::connect(addr).start_http2(&[])
    }

    pub(crate) fn start_http2(mut self, values: &[(u16, u32)]) -> Client {
        self.send(PREFACE);
        self.send(settings(values));
        let is_ack = |frame: &Frame| frame.is(SETTINGS, 0) && frame.flags & ACK != 0;
        let first = self.frame().expect("the server's SETTINGS");
        assert!(first.is(SETTINGS, 0) && !is_ack(&first), "{first:?}");
        self.send(settings_ack());
        while !is_ack(&self.frame().expect("the server acknowledges")) {}
        self
    }
}

impl<S: Read + Write> Client<S> {
    /// The next frame; `None` once the connection has ended.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        match self.try_frame() {
            Ok(frame) => Some(frame),
            Err(error) if is_end(&error) => None,
            Err(error) => panic!("the server says nothing and leaves the connection open: {error}"),
        }
    }

    pub(crate) fn try_frame(&mut self) -> io::Result<Frame> {
        let header = self.exactly(9)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        let payload = self.exactly(number(&header[..3]) as usize)?;
        Ok(Frame { kind: header[3], flags: header[4], stream: number(&header[5..]), payload })
    }

    /// Reads up to a frame of this kind.
    pub(crate) fn frame_of(&mut self, kind: u8, stream: u32) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("the connection ended before frame {kind} of {stream}"));
            if frame.is(kind, stream) {
                return frame;
            }
        }
    }

    /// Reads up to the end of the connection; the code of the last GOAWAY.
    pub(crate) fn goodbye(&mut self) -> Option<u32> {
        let frames = std::iter::from_fn(|| self.frame());
        frames.filter(|frame| frame.is(GOAWAY, 0)).last().map(|frame| frame.code())
    }

    /// The status of the answer on `stream`, which is whole then.
    pub(crate) fn status_of(&mut self, stream: u32) -> u16 {
        let head = self.frame_of(HEADERS, stream);
        let mut last = head.clone();
        while last.flags & END_STREAM == 0 {
            last = self.frame_of(DATA, stream);
        }
        head.status()
    }

    /// Reads up to the end of an answer, of whichever stream.
    pub(crate) fn ended(&mut self) -> u32 {
        loop {
            let frame = self.frame().expect("the connection goes on");
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return frame.stream;
            }
        }
    }
}

/// Writes from a thread of its own until all is written or the server has had enough, while the client reads.
pub(crate) fn flood(client: &Client, mut next: impl FnMut(u32) -> Vec<u8> + Send + 'static, count: u32) {
    let mut stream: TcpStream = client.stream().try_clone().expect("one more descriptor");
    std::thread::spawn(move || {
        let mut numbers = 0..count;
        while !numbers.is_empty() {
            let bytes: Vec<u8> = numbers.by_ref().take(64).flat_map(&mut next).collect();
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    });
}
