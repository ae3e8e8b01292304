//! Clients that make a mess of TLS before, in and after the handshake. As with all hostile ones the host must have done with them after a while.

use std::io::{Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;

use super::hostile::{PATIENCE, ends, reset};
use super::{Random, Seen};
use crate::endpoint::{Endpoint, TlsStream, session, shake_hands};

const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// Types of records (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

pub(super) fn spoil(endpoint: &Endpoint, mut random: Random, is_over: &AtomicBool, seen: &Seen) {
    while !is_over.load(Ordering::Relaxed) {
        // What fails because the host has cut it has failed as it should.
        if let Ok(false) = one(endpoint, &mut random) {
            seen.hung.fetch_add(1, Ordering::Relaxed);
        }
        seen.handshakes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the host had done with it in time. Who leaves by himself does not find out.
fn one(endpoint: &Endpoint, random: &mut Random) -> Result<bool> {
    let Some(config) = &endpoint.tls else { return Ok(true) };
    let mut socket = endpoint.connect_plain(PATIENCE)?;
    let hello = hello(config)?;
    let part = random.below(hello.len() as u64) as usize;
    match random.below(12) {
        // What is no TLS: HTTP in plain, noise, noise in a record.
        0 => socket.write_all(REQUEST)?,
        1 => {
            let length = 1 + random.below(2000);
            socket.write_all(&random.bytes(length))?;
        }
        2 => socket.write_all(&record(HANDSHAKE, random))?,
        // A hello of which the rest never comes, or comes byte by byte, and then nothing.
        3 => socket.write_all(&hello[..part])?,
        4 => {
            for byte in hello {
                socket.write_all(&[byte])?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        // A hello, and nothing more.
        5 => socket.write_all(&hello)?,
        // One that has been damaged on its way.
        6 => {
            let mut hello = hello;
            hello[part] ^= 1 << random.below(8);
            socket.write_all(&hello)?;
        }
        // Away in the middle of the handshake.
        7 => {
            socket.write_all(&hello)?;
            let wanted = random.below(400);
            (&mut socket).take(wanted).read_to_end(&mut Vec::new())?;
            return leave(&socket, random);
        }
        // A second handshake within the first, or after it: a renegotiation, as no version still allows.
        8 => socket.write_all(&hello.repeat(2))?,
        9 => {
            let mut stream = shake_hands(config, socket)?;
            stream.write_all(&REQUEST[..part.min(REQUEST.len() - 1)])?;
            stream.sock.write_all(&hello)?;
            return ends(&mut stream);
        }
        // After the handshake: what nobody can decrypt, an alert in plain, or new keys again and again.
        10 => {
            let mut stream = shake_hands(config, socket)?;
            match random.below(3) {
                0 => stream.sock.write_all(&record(DATA, random))?,
                1 => stream.sock.write_all(&[ALERT, 3, 3, 0, 2, 1, 0])?,
                _ => {
                    // Fails where the version has none.
                    while stream.conn.refresh_traffic_keys().is_ok() && random.below(1000) != 0 {
                        stream.flush()?;
                    }
                    stream.write_all(REQUEST)?;
                }
            }
            return ends(&mut stream);
        }
        // A request whose last record is cut, and no word of goodbye.
        _ => {
            let mut stream = shake_hands(config, socket)?;
            let mut records = records(&mut stream, b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n")?;
            records.extend(self::records(&mut stream, &random.bytes(5000))?);
            let part = random.below(records.len() as u64) as usize;
            stream.sock.write_all(&records[..part])?;
            if random.below(2) == 0 {
                return ends(&mut stream);
            }
            return leave(&stream.sock, random);
        }
    }
    ends(&mut socket)
}

/// The first record of a client.
fn hello(config: &Arc<ClientConfig>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    session(config)?.write_tls(&mut bytes)?;
    Ok(bytes)
}

/// A record of noise.
fn record(kind: u8, random: &mut Random) -> Vec<u8> {
    let length = random.below(1 << 14);
    let mut record = vec![kind, 3, 3];
    record.extend((length as u16).to_be_bytes());
    record.extend(random.bytes(length));
    record
}

/// What would go out if `text` were sent.
fn records(stream: &mut TlsStream, text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.conn.writer().write_all(text)?;
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// The connection will be closed, or reset.
fn leave(socket: &TcpStream, random: &mut Random) -> Result<bool> {
    if random.below(2) == 0 {
        reset(socket)?;
    }
    Ok(true)
}
