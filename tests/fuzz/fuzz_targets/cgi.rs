//! The head that a CGI program prints: however it is cut, it is the same, and has nothing in it that is the connection's.

#![no_main]

use astra_host::fuzzing::printed_head;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [size, printed @ ..] = data else { return };
    let whole = printed_head([printed]);
    assert_eq!(printed_head(printed.chunks(usize::from(*size).max(1))), whole);
    let text = printed.iter().filter(|byte| **byte != b'\r').copied().collect::<Vec<u8>>();
    if !text.windows(2).any(|two| two == b"\n\n") && matches!(whole, Ok(Some(_))) {
        panic!("a head without an end");
    }
    let Ok(Some((status, headers))) = whole else { return };
    assert!(status.as_u16() >= 200);
    for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name}");
    }
});
