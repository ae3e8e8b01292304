//! A client that reads slowly gets its answer, one that does not read is reset, and what was sent whole is not.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use astra_server::{Body, Request, Response, Server};
use support::frames::{DATA, END_STREAM, INITIAL_WINDOW_SIZE, RST_STREAM, get, window_update};
use support::{Client, Running, endless, pattern, server, signals, start};

/// Bytes of an answer: what the system would take at once is less.
const LONG: usize = 8 << 20;

/// Far less than it takes to read a third of what the system would take.
const WRITE_TIMEOUT: Duration = Duration::from_millis(400);

/// `/whole` is one piece, `/frames` two frames of a foreign body, anything else is written bit by bit.
fn serve(server: Server) -> Running {
    let whole = bytes::Bytes::from(pattern(LONG));
    start(server, move |req: Request, _info| {
        let whole = whole.clone();
        Response::new(match req.uri().path() {
            "/whole" => Body::new(whole),
            "/frames" => Body::wrap(Frames(vec![whole.slice(LONG / 2..), whole.slice(..LONG / 2)])),
            _ => Body::stream(move |writer| writer.write_all(&whole)),
        })
    })
}

struct Frames(Vec<bytes::Bytes>);

impl http_body::Body for Frames {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop().map(http_body::Frame::data).map(Ok))
    }
}

/// Two MB a second, without a pause.
fn pace(read: usize) {
    thread::sleep(Duration::from_millis((read / 2000) as u64));
}

#[test]
fn a_client_that_reads_slowly_but_steadily_gets_all_of_its_answer() {
    let server = serve(server().write_timeout(WRITE_TIMEOUT));
    let read = |path: &str| {
        let mut client = Client::connect_narrow(server.addr);
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        let mut got = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let n = client.stream_mut().read(&mut buffer).expect("the server sends on");
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..n]);
            pace(n);
        }
        assert!(got.ends_with(&pattern(LONG)), "{path}: {}", got.len());
    };
    thread::scope(|scope| {
        ["/", "/whole", "/frames"]
            .map(|path| scope.spawn(move || read(path)))
            .map(|read| read.join().expect("all of it"))
    });
}

#[test]
fn on_http2_too_whether_the_socket_or_a_window_holds_the_answer_back() {
    let server = serve(server().write_timeout(WRITE_TIMEOUT).idle_timeout(Duration::from_millis(100)));
    let read = |path: &str, window: u32| {
        let mut client = Client::connect_narrow(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, window)]);
        client.send(window_update(0, window));
        client.send(get(1, path));
        let mut got = Vec::new();
        loop {
            let frame = client.frame().expect("the server sends on");
            assert_ne!(frame.kind, RST_STREAM, "{path} {window}");
            if !frame.is(DATA, 1) {
                continue;
            }
            got.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM != 0 {
                break;
            }
            if !frame.payload.is_empty() {
                let length = frame.payload.len();
                pace(length);
                client.send([window_update(0, length as u32), window_update(1, length as u32)].concat());
            }
        }
        assert!(got == pattern(LONG), "{path} {window}: {}", got.len());
    };
    let cases = [("/", 1 << 24), ("/", 1 << 15), ("/whole", 1 << 24), ("/whole", 1 << 15), ("/frames", 1 << 15)];
    thread::scope(|scope| {
        cases.map(|(path, window)| scope.spawn(move || read(path, window))).map(|read| read.join().expect("all of it"))
    });
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_reset() {
    let (ended, ends) = signals();
    let server = start(server().write_timeout(Duration::from_millis(50)), endless(ended));
    let mut old = Client::connect_narrow(server.addr);
    old.ask("/");
    let mut new = Client::connect_narrow(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1 << 24)]);
    new.send([window_update(0, 1 << 24), get(1, "/")].concat());
    for mut client in [old, new] {
        ends.next();
        assert_eq!(client.rest().expect_err("no end that could be an answer's").kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn what_was_sent_whole_is_there_for_a_client_that_reads_it_after_the_server_has_ended() {
    let body = pattern(90 << 10);
    let sent = bytes::Bytes::from(body.clone());
    let server = start(server().http1_keep_alive(false), move |_req, _info| Response::new(Body::new(sent.clone())));
    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    client.head();
    client.half_close();
    server.into_handle().shutdown(support::PATIENCE);
    assert_eq!(client.exactly(body.len()).expect("all of it"), body);
    assert_eq!(client.rest().expect("no reset"), b"");
}
