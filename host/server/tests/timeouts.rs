//! Connections that nobody uses are closed, without an answer to a question that was not asked.

mod support;

use std::time::Duration;

use astra_server::{Body, Request, Response};
use support::{Gate, server, signals, start};

#[test]
fn an_idle_kept_alive_connection_is_closed_in_silence() {
    let server =
        start(server().idle_timeout(Duration::from_millis(50)), |_req, _info| Response::new(Body::new("handled")));
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "handled");
    }
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_connection_that_never_says_anything_is_closed_in_silence() {
    let server = start(
        server().idle_timeout(Duration::from_millis(50)).header_read_timeout(Duration::from_millis(50)),
        |_req, _info| Response::new(Body::new("handled")),
    );
    assert_eq!(server.connect().until_closed(), b"");
}

#[test]
fn a_connection_whose_handler_runs_is_not_idle() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let timeout = Duration::from_millis(20);
    let server = start(server().idle_timeout(timeout).header_read_timeout(timeout), move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            held.wait();
        }
        Response::new(Body::new("handled"))
    });
    let mut busy = server.connect();
    busy.ask("/hold");
    calls.next();
    // Two idle connections, one after the other, live and die meanwhile.
    for _ in 0..2 {
        let mut idle = server.connect();
        assert_eq!(idle.get("/").text(), "handled");
        assert_eq!(idle.until_closed(), b"");
    }
    gate.open();
    assert_eq!(busy.answer().text(), "handled");
}

#[test]
fn a_connection_that_is_idle_after_an_upload_is_not_taken_for_an_unfinished_head() {
    let timeout = Duration::from_millis(50);
    let server = start(server().idle_timeout(timeout).header_read_timeout(timeout), |mut req: Request, _info| {
        Response::new(Body::new(
            req.body_mut().map(|chunk| chunk.expect("a whole body").len()).sum::<usize>().to_string(),
        ))
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n");
    client.send("ab");
    client.send("cd");
    assert_eq!(client.answer().text(), "4");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_connection_that_was_idle_for_long_serves_the_next_request() {
    let server = start(server(), |req: Request, _info| Response::new(Body::new(req.uri().path().to_owned())));
    let mut client = server.connect();
    assert_eq!(client.get("/first").text(), "/first");
    // Longer than it takes the server to give the connection's buffers back, and the tail of a head in a segment of its own.
    std::thread::sleep(Duration::from_millis(1500));
    client.send("G");
    std::thread::sleep(Duration::from_millis(50));
    client.send("ET /second HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "/second");
    std::thread::sleep(Duration::from_millis(1500));
    // Having spoken HTTP/1, it is not taken for HTTP/2 later.
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn half_a_head_that_came_with_the_request_before_is_408() {
    let server = start(
        server().header_read_timeout(Duration::from_millis(50)).idle_timeout(Duration::from_secs(1000)),
        |req: Request, _info| Response::new(Body::new(req.uri().path().to_owned())),
    );
    let mut client = server.connect();
    client.send("GET /whole HTTP/1.1\r\nhost: test\r\n\r\nGET /half HTTP/1.1\r\nho");
    assert_eq!(client.answer().text(), "/whole");
    assert_eq!(client.answer().status, 408);
    assert_eq!(client.until_closed(), b"");
}
