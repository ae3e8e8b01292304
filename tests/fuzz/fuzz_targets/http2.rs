//! HTTP/2 through a server: whatever frames come, it answers in whole frames, on streams that the client has opened, and ends. The input is
//! a list of frames: kind, flags, stream and length, a byte each, then the payload. The first two bytes are as in `framing`.

#![no_main]

use std::collections::HashSet;

use astra_fuzz::{
    client,
    server::{Mode, server},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// What a PING brings back once all before it has been read.
const SIGN: &[u8; 8] = b"all read";

const HEADER: usize = 9;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [mode, seed, frames @ ..] = data else { return };
    let mut rest = frames;
    let mut sent = [PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat();
    let mut opened = HashSet::new();
    while let [kind, flags, stream, length, payload @ ..] = rest {
        let (payload, after) = payload.split_at(payload.len().min(usize::from(*length)));
        sent.extend([0, 0, payload.len() as u8, *kind, *flags, 0, 0, 0, *stream]);
        sent.extend(payload);
        if *kind == HEADERS {
            opened.insert(u32::from(*stream));
        }
        rest = after;
    }
    sent.extend([&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], SIGN].concat());
    let answered = client::exchange(server(Mode::of(*mode)), &sent, *seed, Some(SIGN));
    if std::env::var_os("SHOW").is_some() {
        eprintln!("sent:\n{}\nanswered:\n{}", sent.escape_ascii(), answered.escape_ascii());
    }
    let mut answered = &answered[..];
    let mut is_first = true;
    while !answered.is_empty() {
        let (&[high, middle, low, kind, _, s0, s1, s2, s3], after) =
            answered.split_first_chunk::<HEADER>().expect("a whole header");
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        answered = after.get(length..).expect("a whole payload");
        assert!(!is_first || kind == SETTINGS, "SETTINGS come first");
        is_first = false;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        assert!(!matches!(kind, DATA | HEADERS) || opened.contains(&stream), "answered on a stream that is not there");
    }
});
