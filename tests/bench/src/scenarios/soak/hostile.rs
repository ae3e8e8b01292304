//! Clients that do what clients must not, or what nobody should mind: heads that are none, uploads that are cut, resets in the middle,
//! reading slowly or not at all, frames of HTTP/2 by the thousand. Whatever they do, the host must have done with them after a while.

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Random, Seen};
use crate::endpoint::Endpoint;

/// Longer than all time-outs of the host together.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

const MALFORMED: [&str; 12] = [
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "GET / HTTP/9.9\r\nhost: a\r\n\r\n",
    "GET  /  HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    "POST /echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03 hello, do you speak TLS\r\n\r\n",
];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) fn attack(endpoint: &Endpoint, mut random: Random, is_over: &AtomicBool, seen: &Seen) {
    while !is_over.load(Ordering::Relaxed) {
        // What fails because the host has cut it has failed as it should.
        if let Ok(false) = one(endpoint, &mut random) {
            seen.hung.fetch_add(1, Ordering::Relaxed);
        }
        seen.hostile.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the host had done with it in time. Who leaves by himself does not find out.
fn one(endpoint: &Endpoint, random: &mut Random) -> Result<bool> {
    let mut stream = endpoint.connect(PATIENCE)?;
    match random.below(11) {
        0 => {
            stream.write_all(MALFORMED[random.below(MALFORMED.len() as u64) as usize].as_bytes())?;
            return ends(&mut stream);
        }
        1 => {
            let length = 1 + random.below(2000);
            stream.write_all(&random.bytes(length))?;
            return ends(&mut stream);
        }
        // A head byte by byte, for as long as it is taken.
        2 => {
            let started = Instant::now();
            for byte in b"GET /hello HTTP/1.1\r\nhost: a\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
                if started.elapsed() > PATIENCE {
                    return Ok(false);
                }
                stream.write_all(&[*byte])?;
                thread::sleep(Duration::from_millis(100));
            }
        }
        // A body of which the rest never comes.
        3 => {
            upload(&mut stream, random)?;
            return ends(&mut stream);
        }
        // A body that is cut, the connection closed or reset.
        4 => {
            upload(&mut stream, random)?;
            if random.below(2) == 0 {
                reset(stream.socket())?;
            }
        }
        // An answer that is not waited for.
        5 => {
            stream.write_all(b"GET /stream?count=1000&ms=1 HTTP/1.1\r\nhost: a\r\n\r\n")?;
            let wanted = random.below(4000);
            (&mut stream).take(wanted).read_to_end(&mut Vec::new())?;
            reset(stream.socket())?;
        }
        // An answer that is read slowly, and then not any more.
        6 => {
            stream.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n".repeat(200).as_slice())?;
            for _ in 0..20 {
                stream.read_exact(&mut [0; 100])?;
                thread::sleep(Duration::from_millis(50));
            }
            thread::sleep(Duration::from_secs(3));
        }
        // A guest that traps when half of its answer is out.
        7 => {
            stream.write_all(b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n")?;
            return ends(&mut stream);
        }
        // Streams that are reset as soon as they are asked for.
        8 => {
            let mut frames = PREFACE.to_vec();
            for stream in (1..200).step_by(2) {
                frames.extend(headers(b"/stream?count=1000&ms=1", END_STREAM | END_HEADERS, stream));
                frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            }
            stream.write_all(&frames)?;
            return ends(&mut stream);
        }
        9 => {
            let mut frames = PREFACE.to_vec();
            match random.below(3) {
                0 => frames.extend(frame(PING, 0, 0, &[0; 8]).repeat(3000)),
                1 => frames.extend(random.bytes(2000)),
                // An upload without its end.
                _ => {
                    frames.extend(headers(b"/echo", END_HEADERS, 1));
                    frames.extend(frame(DATA, 0, 1, &[b'x'; 1000]));
                }
            }
            stream.write_all(&frames)?;
            return ends(&mut stream);
        }
        // Several requests at once, and away in the middle of their answers.
        _ => {
            let mut frames = PREFACE.to_vec();
            for stream in (1..20).step_by(2) {
                frames.extend(headers(b"/big", END_STREAM | END_HEADERS, stream));
            }
            stream.write_all(&frames)?;
            let wanted = random.below(20_000);
            (&mut stream).take(wanted).read_to_end(&mut Vec::new())?;
            reset(stream.socket())?;
        }
    }
    Ok(true)
}

/// The head of a request with a body of 100,000 bytes, and some of them.
fn upload(stream: &mut impl Write, random: &mut Random) -> Result<()> {
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n")?;
    let part = random.below(99_999);
    stream.write_all(&random.bytes(part))
}

/// Reads until the host has ended the connection, in whatever way.
pub(super) fn ends(stream: &mut impl Read) -> Result<bool> {
    let started = Instant::now();
    let mut buffer = [0; 1 << 14];
    while started.elapsed() < PATIENCE {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

/// When the connection is closed, it is with RST.
pub(super) fn reset(socket: &TcpStream) -> Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// A HEADERS frame (RFC 9113 section 6.2) with indexed and literal fields (RFC 7541).
fn headers(path: &[u8], flags: u8, stream: u32) -> Vec<u8> {
    // `:method: GET` or `POST`, `:scheme: http`, `:authority: a`, `:path`.
    let method = if flags & END_STREAM == 0 { 0x83 } else { 0x82 };
    let mut block = vec![method, 0x86, 0x41, 1, b'a', 0x44, path.len() as u8];
    block.extend(path);
    frame(HEADERS, flags, stream, &block)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
