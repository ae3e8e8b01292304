//! One connection: bytes are sent in pieces, our side is ended, and all is read that comes back.

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::{SocketAddr, UnixStream},
    thread,
    time::Duration,
};

/// The server has a second for an idle connection in no state that this client can bring it to.
const HANG: Duration = Duration::from_secs(8);

/// Most pieces, each of which costs a context switch or two.
const PIECES: u32 = 7;

/// Sends `bytes` and reads to the end. If there is a `sign`, our side is ended only once that has come back, or the server has ended, and
/// the handlers have had a moment: an HTTP/2 client that ends its side is gone.
///
/// # Panics
/// If the server neither answers nor closes.
#[must_use]
pub fn exchange(server: &SocketAddr, bytes: &[u8], seed: u8, sign: Option<&[u8]>) -> Vec<u8> {
    let mut stream = UnixStream::connect_addr(server).expect("the server listens");
    stream.set_read_timeout(Some(HANG)).expect("a timeout");
    for (index, piece) in pieces(bytes, seed).into_iter().enumerate() {
        if index > 0 {
            // Nothing depends on it: pieces that are read at once are another case.
            thread::sleep(Duration::from_micros(20));
        }
        // The server may have closed by then.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut answers = Vec::new();
    if let Some(sign) = sign {
        let mut part = [0; 4096];
        while !answers.windows(sign.len()).any(|some| some == sign) {
            match stream.read(&mut part) {
                Ok(read @ 1..) => answers.extend_from_slice(&part[..read]),
                Ok(0) => break,
                // libFuzzer's alarm.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the server does not answer a PING: {error}; so far {}", answers.escape_ascii()),
            }
        }
        thread::sleep(Duration::from_micros(200));
    }
    let _ = stream.shutdown(Shutdown::Write);
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server neither answers nor closes: {error}; so far {}", answers.escape_ascii()),
    }
    answers
}

/// `bytes`, cut at places that `seed` chooses; not at all for 0.
fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut random = u32::from(seed);
    let mut next = |below: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % below.max(1)
    };
    let cuts = if seed == 0 { 0 } else { 1 + next(PIECES as usize) };
    let mut at: Vec<usize> = (0..cuts).map(|_| next(bytes.len())).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.dedup();
    if at.len() < 2 { vec![bytes] } else { at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect() }
}
