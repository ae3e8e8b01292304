//! The header of the PROXY protocol, version 2: read as its specification has it, known how much of it is missing, and nothing behind it
//! makes a difference.

#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use astra_server::fuzzing::{Announced, proxy_header};

/// Section 2.2 of HAProxy's `proxy-protocol.txt`; none if it is no whole header.
fn specified(bytes: &[u8]) -> Option<Announced> {
    let rest = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
    let length = usize::from(high) << 8 | usize::from(low);
    let rest = rest.get(..length).filter(|_| length <= 4096)?;
    let port = |at: usize| u16::from(rest[at]) << 8 | u16::from(rest[at + 1]);
    match (command, family) {
        (0x21, 0x11) if length >= 12 => {
            let ip = |at: usize| Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]);
            Some(Some((SocketAddr::new(ip(0).into(), port(8)), SocketAddr::new(ip(4).into(), port(10)))))
        }
        (0x21, 0x21) if length >= 36 => {
            let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&rest[at..at + 16]).expect("16 bytes"));
            Some(Some((SocketAddr::new(ip(0).into(), port(32)), SocketAddr::new(ip(16).into(), port(34)))))
        }
        (0x21, 0x11 | 0x21) => None,
        (0x20 | 0x21, _) => Some(None),
        _ => None,
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let whole = proxy_header(bytes);
    match whole {
        Ok(Ok(announced)) => assert_eq!(specified(bytes), Some(announced)),
        Ok(Err(missing)) => {
            assert!((1..=16 + 4096).contains(&missing));
            assert_eq!(specified(bytes), None);
            // What is asked for is never more than there is.
            let more = [bytes, &vec![0; missing - 1]].concat();
            assert!(!matches!(proxy_header(&more), Ok(Ok(_))), "bytes behind the header were asked for");
        }
        Err(()) => assert_eq!(specified(bytes), None),
    }
    // As a connection reads it: what is missing, and not a byte more.
    let mut read = 0;
    let piecemeal = loop {
        match proxy_header(&bytes[..read]) {
            Ok(Err(missing)) if read < bytes.len() => read = bytes.len().min(read + missing),
            other => break other,
        }
    };
    assert_eq!(whole, piecemeal);
});
