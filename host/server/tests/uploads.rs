//! Slow uploads hold few threads: at most half of the workers wait for bodies that have not ended; further requests with an unfinished body
//! wait without one, and all others pass them.

mod support;

use std::io::{Read, Write as _};
use std::thread;
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Request, Response, Server};
use http_body::Body as _;
use support::{Client, Running, Signals, pattern, server, signals, start};

/// Says the target of each request when its handler starts, and answers with the body.
fn echo(server: Server) -> (Running, Signals<String>) {
    let (called, calls) = signals();
    let echo = move |mut request: Request, _info: ConnectionInfo| {
        called.send(request.uri().path().to_owned()).expect("the test listens");
        let mut body = Vec::new();
        match request.body_mut().reader().read_to_end(&mut body) {
            Ok(_) => Response::new(Body::new(body)),
            Err(error) => Response::new(Body::new(error.to_string())),
        }
    };
    (start(server, echo), calls)
}

/// Sends the head of an upload of ten bytes, and the first five.
fn begin(server: &Running, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello"));
    client
}

/// Four workers, two of which wait for uploads.
fn two_stalled(server: Server) -> (Running, Signals<String>, [Client; 2]) {
    let (server, calls) = echo(server.max_workers(4));
    let stalled = ["/first", "/second"].map(|path| {
        let client = begin(&server, path);
        assert_eq!(calls.next(), path);
        client
    });
    (server, calls, stalled)
}

/// Longer than a body is waited for before its handler starts without the rest, so that a handler that should not start had its chance.
fn give_them_time() {
    thread::sleep(Duration::from_millis(100));
}

#[test]
fn half_of_the_workers_at_most_wait_for_bodies_and_all_other_requests_pass() {
    let (server, calls, [mut first, mut second]) = two_stalled(server());
    let mut third = begin(&server, "/third");
    let mut fourth = begin(&server, "/fourth");
    give_them_time();
    assert!(calls.is_empty(), "a third of four workers waits for a body");
    assert_eq!(server.connect().get("/get").text(), "");
    assert_eq!(calls.next(), "/get");
    assert_eq!(server.connect().post("/whole", b"whole").text(), "whole");
    assert_eq!(calls.next(), "/whole");
    first.send("world");
    assert_eq!(first.answer().text(), "helloworld");
    // One of them, in whatever order they came.
    calls.next();
    for client in [&mut second, &mut third, &mut fourth] {
        client.send("world");
        assert_eq!(client.answer().text(), "helloworld");
    }
}

#[test]
fn an_upload_that_ends_while_it_waits_for_a_place_needs_none() {
    let (server, calls, _stalled) = two_stalled(server());
    let mut third = begin(&server, "/third");
    give_them_time();
    assert!(calls.is_empty());
    third.send("world");
    assert_eq!(third.answer().text(), "helloworld");
    // Trailers too.
    let mut fourth = server.connect();
    fourth.send("POST /fourth HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    give_them_time();
    fourth.send("0\r\na: b\r\n\r\n");
    assert_eq!(fourth.answer().text(), "hello");
}

#[test]
fn an_upload_that_waits_too_long_for_a_place_is_503() {
    let (server, calls, _stalled) = two_stalled(server().queue(10, Duration::from_secs(1)));
    let answer = begin(&server, "/third").answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(calls.is_empty());
}

#[test]
fn more_uploads_than_may_be_queued_are_503_at_once() {
    let (server, calls, [mut first, _second]) = two_stalled(server().queue(1, Duration::from_secs(1000)));
    let (refused, statuses) = signals();
    let clients = ["/a", "/b"].map(|path| {
        let client = begin(&server, path);
        let (mut other, refused) =
            (Client::over(client.stream().try_clone().expect("a second handle of the socket")), refused.clone());
        thread::spawn(move || refused.send((path, other.answer().status)).expect("the test listens"));
        (path, client)
    });
    let (refused, status) = statuses.next();
    assert_eq!(status, 503);
    first.send("world");
    assert_eq!(first.answer().text(), "helloworld");
    for (path, mut client) in clients.into_iter().filter(|(path, _)| *path != refused) {
        assert_eq!(calls.next(), path);
        client.send("world");
        assert_eq!(statuses.next(), (path, 200));
    }
}

#[test]
fn an_upload_that_goes_away_while_it_waits_for_a_place_passes_its_turn_on() {
    let (server, calls, [mut first, _second]) = two_stalled(server());
    let third = begin(&server, "/third");
    give_them_time();
    let mut fourth = begin(&server, "/fourth");
    give_them_time();
    third.reset();
    give_them_time();
    first.send("world");
    assert_eq!(first.answer().text(), "helloworld");
    // That the third has gone may be seen late: then its handler starts, and ends at once.
    while calls.next() != "/fourth" {}
    fourth.send("world");
    assert_eq!(fourth.answer().text(), "helloworld");
}

#[test]
fn a_body_that_nobody_will_read_leaves_its_place() {
    let server = start(server().max_workers(2), |_req, _info| Response::new(Body::new("unread")));
    for _ in 0..10 {
        assert_eq!(begin(&server, "/").answer().text(), "unread");
    }
}

#[test]
fn with_expect_the_handler_starts_at_once_and_asks_for_the_body_by_reading() {
    let (called, calls) = signals();
    let (go, gate) = signals();
    let gate = std::sync::Mutex::new(gate);
    let server = start(server(), move |mut request: Request, _info| {
        called.send(()).expect("the test listens");
        gate.lock().expect("one handler").next();
        Response::new(Body::new(
            request.body_mut().map(|chunk| chunk.expect("the client sends all")).collect::<Vec<_>>().concat(),
        ))
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    calls.next();
    go.send(()).expect("the handler waits");
    assert_eq!(client.head().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn what_has_arrived_counts_in_the_length_that_a_handler_is_told() {
    let (told, hints) = signals();
    let server = start(server(), move |mut request: Request, _info| {
        let body = request.body();
        told.send((http_body::Body::size_hint(body).exact(), body.is_end_stream())).expect("the test listens");
        Response::new(Body::new(
            request.body_mut().map(|chunk| chunk.expect("the client sends all").len()).sum::<usize>().to_string(),
        ))
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
    assert_eq!(hints.next(), (Some(10), false));
    client.send("world");
    assert_eq!(client.answer().text(), "10");
    assert_eq!(client.post("/", b"hello").text(), "5");
    assert_eq!(hints.next(), (Some(5), false));
    client.get("/");
    assert_eq!(hints.next(), (Some(0), true));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(hints.next(), (None, false));
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "5");
}

#[test]
fn bodies_around_what_is_taken_in_ahead_arrive_whole_however_they_are_cut() {
    let (server, _calls) = echo(server());
    let mut client = server.connect();
    for length in [1, 2, 8_191, 65_535, 65_536, 65_537, 200_000] {
        let body = pattern(length);
        client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        for chunk in body.chunks(length.div_ceil(50)) {
            client.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        }
        client.send("0\r\n\r\n");
        assert!(client.answer().body == body, "{length}");
        assert!(client.post("/", &body).body == body, "{length}");
    }
    // In chunks of one byte, all in one segment.
    let chunks = "1\r\nx\r\n".repeat(10_000);
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
    assert_eq!(client.answer().body, "x".repeat(10_000).as_bytes());
}

#[test]
fn a_body_that_trickles_is_408_although_it_never_stands_still() {
    let (server, calls) = echo(server().body_rate(1_000_000, Duration::from_millis(100)));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n");
    let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
    let trickling = thread::spawn(move || {
        while sender.try_send("x").is_ok() {
            thread::sleep(Duration::from_millis(5)); // the trickle is what is tested
        }
    });
    assert_eq!(client.answer().status, 408);
    assert_eq!(calls.next(), "/");
    client.until_closed();
    trickling.join().expect("the trickle stops when the server closes");
}

#[test]
fn trailers_leave_their_connection_as_it_was_however_late_they_come() {
    let (server, calls) = echo(server());
    let mut client = server.connect();
    for length in [1, 70_000] {
        let body = "x".repeat(length);
        client.send(format!(
            "POST /late HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n"
        ));
        assert_eq!(calls.next(), "/late");
        client.send("0\r\na: b\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.header("connection"), answer.body.len()), (None, length));
        assert_eq!(client.post("/next", b"whole").text(), "whole");
        assert_eq!(calls.next(), "/next");
    }
}

/// However the answer's end and that of the body meet.
#[test]
fn nothing_is_answered_behind_a_trailer_that_may_have_swallowed_a_request() {
    let server = start(server(), |mut request: Request, _info: ConnectionInfo| {
        Response::new(Body::stream(move |writer| request.body_mut().try_for_each(|chunk| writer.write_all(&chunk?))))
    });
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut client = server.connect();
                    client.send(
                        "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\na: b\r\n\nGE",
                    );
                    thread::sleep(Duration::from_millis(5)); // so that the answer has begun
                    client.send(&get("/swallowed")[2..]);
                    // It may be too late for these.
                    let _ = client.try_send([get("/1"), get("/2")].concat());
                    let answers = String::from_utf8(client.until_closed()).expect("text");
                    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
                }
            });
        }
    });
}
