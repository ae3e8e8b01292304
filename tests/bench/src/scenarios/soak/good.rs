//! Clients that ask well, and know what they are to get.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Random, Seen};
use crate::endpoint::Endpoint;
use crate::http1::{Answer, Connection};

/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(5);

/// Less than what sockets hold: the answer comes while the request goes out.
const MOST_ECHOED: u64 = 64 << 10;

/// One request in so many computes until its deadline.
const LOOPS: u64 = 50;

struct Question {
    request: Vec<u8>,
    is_right: Box<dyn Fn(&Answer) -> bool>,
}

/// Asks until it is over.
pub(super) fn ask(endpoint: &Endpoint, mut random: Random, is_over: &AtomicBool, seen: &Seen) {
    let mut connection = None;
    while !is_over.load(Ordering::Relaxed) {
        let question = question(endpoint.addr, &mut random);
        connection = put(endpoint, connection, &question, seen);
        thread::sleep(PAUSE);
    }
}

/// Sends requests that end when an operator kills them.
pub(super) fn wait_for_kill(endpoint: &Endpoint, is_over: &AtomicBool, seen: &Seen) {
    let question = get(endpoint.addr, "/victim?ms=600000", |answer| answer.status == 503);
    while !is_over.load(Ordering::SeqCst) {
        put(endpoint, None, &question, seen);
    }
}

/// Gives back the connection, if it can be used again.
fn put(endpoint: &Endpoint, connection: Option<Connection>, question: &Question, seen: &Seen) -> Option<Connection> {
    let wrong = |what: &str| {
        let head = String::from_utf8_lossy(&question.request);
        seen.wrong(1, || format!("{}: {what}", head.lines().next().unwrap_or_default()));
        None
    };
    let open = connection.map_or_else(|| Connection::open(endpoint), Ok);
    match open.and_then(|mut open| Ok((open.ask(&question.request)?, open))) {
        Ok((answer, open)) => match answer.id {
            Some(id) if (question.is_right)(&answer) => {
                seen.right([id], endpoint.tls.is_some().into());
                (!open.is_over).then_some(open)
            }
            _ => wrong(&format!("{} with {} bytes, id {:?}", answer.status, answer.body.len(), answer.id)),
        },
        Err(error) => wrong(&format!("{error:#}")),
    }
}

fn question(addr: SocketAddr, random: &mut Random) -> Question {
    if random.below(LOOPS) == 0 {
        // One at a time is let in.
        return get(addr, "/loop", |answer| matches!(answer.status, 503 | 504));
    }
    match random.below(7) {
        0 => get(addr, "/hello", |answer| answer.status == 200 && answer.body == b"Hello World!"),
        1 => get(addr, "/slow?ms=20", |answer| answer.status == 200 && answer.body == b"slept 20 ms\n"),
        2 => get(addr, "/stream?count=20&ms=2", |answer| answer.status == 200 && is_of_one(&answer.body, 20)),
        3 => get(addr, "/big", |answer| answer.status == 200 && is_of_one(&answer.body, 5000)),
        4 => get(addr, "/trap", |answer| answer.status == 500),
        5 => echo(addr, random, false),
        _ => echo(addr, random, true),
    }
}

fn get(addr: SocketAddr, path: &str, is_right: impl Fn(&Answer) -> bool + 'static) -> Question {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\n\r\n").into_bytes();
    Question { request, is_right: Box::new(is_right) }
}

/// A body of any length, with its length or in two chunks.
fn echo(addr: SocketAddr, random: &mut Random, is_chunked: bool) -> Question {
    let length = random.below(MOST_ECHOED);
    let body = random.bytes(length);
    let head = format!("POST /echo HTTP/1.1\r\nhost: {addr}\r\n");
    let request = if is_chunked {
        let (first, second) = body.split_at(body.len() / 2);
        let mut request = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
        for chunk in [first, second].into_iter().filter(|chunk| !chunk.is_empty()) {
            request.extend(format!("{:x}\r\n", chunk.len()).bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
        request
    } else {
        let mut request = format!("{head}content-length: {length}\r\n\r\n").into_bytes();
        request.extend(&body);
        request
    };
    Question { request, is_right: Box::new(move |answer| answer.status == 200 && answer.body == body) }
}

/// Whether a body is the text of one revision, so many times.
fn is_of_one(body: &[u8], times: usize) -> bool {
    body.starts_with(b"version-") && body.len() == 12 * times && body.chunks(12).all(|text| text == &body[..12])
}
