//! HTTP/1 through a server: the requests that arrive are those that a strict reading of RFC 9112 finds in the same bytes, with the same
//! bodies, however the bytes are cut; and the connection ends. The first byte says what the handler does with bodies, the second how the
//! rest is cut. With `SHOW` in the environment it shows all that.

#![no_main]

use astra_fuzz::{
    answers, client, requests,
    server::{Mode, server},
};

/// What makes it HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [mode, seed, bytes @ ..] = data else { return };
    if bytes.starts_with(PREFACE) {
        return;
    }
    let mode = Mode::of(*mode);
    let answered = client::exchange(server(mode), bytes, *seed, None);
    let requests = requests::read(bytes);
    if std::env::var_os("SHOW").is_some() {
        eprintln!("sent ({mode:?}, cut {seed}):\n{}", bytes.escape_ascii());
        eprintln!("read: {requests:#?}\nanswered:\n{}", answered.escape_ascii());
    }
    answers::check(&requests, &answers::read(&answered), mode);
});
