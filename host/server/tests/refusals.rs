//! What the server refuses by itself: heads that break RFC 9110 or 9112, what is too large, what is too slow. The handler never
//! sees any of it, and the client gets to read why.

mod support;

use std::io::Read;
use std::net::Shutdown;
use std::sync::mpsc::Sender;
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Request, Response};
use support::{Client, PATIENCE, Running, pattern, serve, server, signals, start};

/// Answers every request; what reaches it was not refused.
fn permissive() -> Running {
    serve(|_req, _info| Response::new(Body::new("handled")))
}

/// Sends `request`, gets `status`, and the connection is closed without another answer.
fn refused(server: &Running, request: impl AsRef<[u8]>, status: u16) {
    let mut client = server.connect();
    client.send(&request);
    let answer = client.answer();
    let shown = String::from_utf8_lossy(request.as_ref());
    assert_eq!(answer.status, status, "{shown:.80}");
    assert_eq!(client.until_closed(), b"", "{shown:.80}");
}

#[test]
fn a_request_without_a_host_is_400() {
    refused(&permissive(), "GET / HTTP/1.1\r\n\r\n", 400);
}

#[test]
fn a_request_with_two_hosts_is_400() {
    let server = permissive();
    refused(&server, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400);
    refused(&server, "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400);
}

#[test]
fn a_request_with_an_invalid_host_is_400() {
    let server = permissive();
    for host in ["a b", "a/b", "user@a", "a:b:c", "a:port", "[::1", "a?b", "a#b"] {
        refused(&server, format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"), 400);
    }
}

#[test]
fn valid_hosts_are_accepted() {
    let server = permissive();
    let mut client = server.connect();
    for host in ["a", "a.example", "a.example:8080", "127.0.0.1:1", "[::1]", "[::1]:80", "xn--bcher-kva.example", "a_b"]
    {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.answer().status, 200, "{host}");
    }
    // RFC 9112 3.2: an authority that is empty or missing in the target goes with an empty Host.
    client.send("GET / HTTP/1.1\r\nhost:\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn after_a_refused_host_what_was_pipelined_is_not_answered() {
    let server = permissive();
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn transfer_encoding_with_content_length_closes_the_connection() {
    // RFC 9112 6.1: the answer may be 200 or 400; what follows may be a smuggled request and is not answered.
    let server = permissive();
    for head in ["content-length: 4\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 4"] {
        let mut client = server.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n"
        ));
        let answers = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{head}: {answers}");
    }
}

#[test]
fn transfer_encoding_of_http_1_0_or_not_chunked_is_400() {
    let server = permissive();
    refused(&server, "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: gzip\r\n\r\n", 400);
    // Codings that we do not know, or one too many: not 200 with a body that is still encoded (RFC 9112 sections 6.1 and 7).
    for (codings, status) in [
        ("transfer-encoding: chunked, chunked", 400),
        ("transfer-encoding: chunked\r\nTransfer-Encoding: Chunked", 400),
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", 501),
    ] {
        refused(&server, format!("POST / HTTP/1.1\r\nhost: test\r\n{codings}\r\n\r\n0\r\n\r\n"), status);
    }
    refused(&server, "POST / HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400);
}

#[test]
fn differing_content_lengths_are_400() {
    let server = permissive();
    for lengths in
        ["content-length: 1\r\ncontent-length: 2", "content-length: 1, 2", "content-length: -1", "content-length: 1a"]
    {
        refused(&server, format!("POST / HTTP/1.1\r\nhost: test\r\n{lengths}\r\n\r\n"), 400);
    }
}

#[test]
fn malformed_heads_are_400() {
    let server = permissive();
    for head in [
        "not http at all\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nspace before : colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nbare: c\rr\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nfolded: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nnul: \0\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}", // a TLS client that took the wrong port
    ] {
        refused(&server, head, 400);
    }
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let server = permissive();
    let large = "x".repeat(1 << 20);
    let mut client = server.connect();
    // The server need not take all of it.
    let _ = client.try_send(format!("GET / HTTP/1.1\r\nhost: test\r\nlarge: {large}\r\n\r\n"));
    assert_eq!(client.answer().status, 431);
    client.until_closed();
}

#[test]
fn a_head_may_be_as_large_as_is_said_and_not_a_byte_larger() {
    for limit in [16 << 10, 64 << 10, 1 << 20] {
        let server = start(server().http1_max_header_size(limit), |mut req: Request, _info| {
            Response::new(Body::new(format!("{} pieces", req.body_mut().count())))
        });
        for (length, status) in [(limit - 1, 200), (limit, 200), (limit + 1, 431)] {
            let (begin, end) = ("GET / HTTP/1.1\r\nhost: test\r\nlarge: ", "\r\n\r\n");
            let head = format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len()));
            let mut client = server.connect();
            client.send(&head);
            assert_eq!(client.answer().status, status, "{length} of {limit}");
            // After a request with a body, and in pieces.
            let mut client = server.connect();
            assert_eq!(client.post("/", &pattern(100_000)).status, 200);
            for piece in head.as_bytes().chunks(10_001) {
                client.send(piece);
            }
            assert_eq!(client.answer().status, status, "{length} of {limit}, in pieces");
        }
    }
}

#[test]
fn too_many_header_fields_are_431() {
    let fields: String = (0..1000).map(|i| format!("x-{i}: 1\r\n")).collect();
    refused(&permissive(), format!("GET / HTTP/1.1\r\nhost: test\r\n{fields}\r\n"), 431);
}

#[test]
fn trace_and_connect_are_405_with_allow() {
    let server = permissive();
    for request in ["TRACE / HTTP/1.1\r\nhost: test\r\n\r\n", "CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let answer = client.answer();
        assert_eq!(answer.status, 405, "{request}");
        let allow = answer.header("allow").expect("RFC 9110 15.5.6: 405 comes with Allow");
        assert!(allow.contains("GET") && !allow.contains("TRACE") && !allow.contains("CONNECT"), "{allow}");
    }
}

#[test]
fn any_other_method_token_reaches_the_handler() {
    let server = permissive();
    let mut client = server.connect();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "QUERY", "MADE-UP"] {
        client.send(format!("{method} / HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(client.answer().text(), "handled", "{method}");
    }
    client.send("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "handled");
}

#[test]
fn a_body_that_is_malformed_from_the_start_is_400_without_a_call() {
    let server = start(server(), |_req, _info| -> Response { panic!("the handler was called") });
    for body in
        ["zz\r\nabc\r\n0\r\n\r\n", "0x1\r\na\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "0\r\n\nGET / HTTP/1.1\r\n\r\n"]
    {
        refused(&server, format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{body}"), 400);
    }
}

#[test]
fn a_declared_body_that_is_too_large_is_413_without_a_call() {
    let server = start(server().max_body(1000), |_req, _info| -> Response { panic!("the handler was called") });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1001\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    client.until_closed();
}

#[test]
fn an_expected_body_that_is_too_large_is_413_instead_of_100() {
    let server = start(server().max_body(1000), |_req, _info| Response::new(Body::new("handled")));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n");
    assert_eq!(client.head().status, 413);
}

#[test]
fn a_413_reaches_a_client_that_first_sends_all_it_has() {
    let server = start(server().max_body(1000), |_req, _info| Response::new(Body::new("handled")));
    // Whether or not the answer is there; more than both sockets hold.
    for length in [100_000, 12 << 20] {
        let mut client = server.connect();
        assert_eq!(client.post("/", &pattern(length)).status, 413);
        client.until_closed();
    }
}

#[test]
fn a_413_reaches_a_client_that_never_stops_sending_and_a_stop_does_not_wait_for_that() {
    let server = start(server().max_body(1000).max_workers(1), |_req, _info| Response::new(Body::new("handled")));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100000000000\r\n\r\n");
    let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
    let sending = std::thread::spawn(move || while sender.try_send([0; 64 << 10]).is_ok() {});
    assert_eq!(client.answer().status, 413);
    assert_eq!(server.connect().get("/").text(), "handled");
    assert!(!sending.is_finished(), "it is read on");
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing had to be cut");
    // The server gives the connection up: that is what ends the sender.
    sending.join().expect("the sender stops");
}

/// Reads its body to the end; whatever comes of it, it says 200.
fn reads_all(read: Sender<bool>) -> impl Fn(Request, ConnectionInfo) -> Response {
    move |mut req: Request, _info| {
        let result = req.body_mut().reader().read_to_end(&mut Vec::new());
        read.send(result.is_ok()).expect("the test listens");
        Response::new(Body::new("handled"))
    }
}

#[test]
fn a_chunked_body_that_becomes_too_large_is_413_whatever_the_handler_says() {
    let (read, whole) = signals();
    let server = start(server().max_body(1000), reads_all(read));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..11 {
        client.send(format!("64\r\n{}\r\n", "x".repeat(100)));
    }
    // The client has not said that it is done.
    assert_eq!(client.answer().status, 413);
    assert!(!whole.next(), "the handler took a cut body for a whole one");
    client.until_closed();
}

#[test]
fn a_413_reaches_a_client_that_never_stops_sending_chunks() {
    let (read, _whole) = signals();
    let server = start(server().max_body(1000), reads_all(read));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let sending = std::thread::spawn(move || while sender.try_send(&chunk).is_ok() {});
    assert_eq!(client.answer().status, 413);
    client.stream().shutdown(Shutdown::Both).expect("connected");
    sending.join().expect("the sender stops");
}

#[test]
fn a_chunked_body_up_to_the_limit_is_taken() {
    let (read, whole) = signals();
    let server = start(server().max_body(1000), reads_all(read));
    let mut client = server.connect();
    let chunks = format!("1f4\r\n{}\r\n", "x".repeat(500)).repeat(2);
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"));
    assert_eq!(client.answer().text(), "handled");
    assert!(whole.next());
}

#[test]
fn malformed_chunks_are_an_error_to_the_handler_and_end_the_connection() {
    for chunks in ["zz\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "-1\r\n"] {
        let (read, whole) = signals();
        let server = start(server(), reads_all(read));
        let mut client = server.connect();
        let next = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";
        // The handler is who asks for the body, so it is there when the body comes.
        let head = "POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}{chunks}{next}"));
        assert!(!whole.next(), "{chunks}");
        let answers = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert!(answers.contains("HTTP/1.1 400 ") && !answers.contains("HTTP/1.1 200 "), "{chunks}: {answers}");
    }
}

#[test]
fn upgrades_are_not_taken_up() {
    let server = permissive();
    let mut client = server.connect();
    for (protocol, more) in
        [("websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), ("h2c", "http2-settings: AAAA\r\n")]
    {
        client
            .send(format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n{more}\r\n"));
        assert_eq!(client.answer().text(), "handled", "{protocol}");
    }
}

#[test]
fn bodies_up_to_the_limit_are_taken() {
    let server = start(server().max_body(1000), |_req, _info| Response::new(Body::new("handled")));
    assert_eq!(server.connect().post("/", &pattern(1000)).text(), "handled");
}

#[test]
fn half_a_head_is_408_after_the_head_timeout() {
    let server = start(server().header_read_timeout(Duration::from_millis(50)), |_req, _info| {
        Response::new(Body::new("handled"))
    });
    refused(&server, "GET / HTTP/1.1\r\nhost: te", 408);
    // Also on a connection that was used before.
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "handled");
    client.send("GE");
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (408, "408 Request Timeout\n"));
    assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "9110 6.6.1: {:?}", answer.headers);
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_trickled_head_does_not_stretch_the_head_timeout() {
    let server = start(server().header_read_timeout(Duration::from_millis(100)), |_req, _info| {
        Response::new(Body::new("handled"))
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nslow: ");
    let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
    let trickling = std::thread::spawn(move || {
        while sender.try_send("x").is_ok() {
            std::thread::sleep(Duration::from_millis(10)); // the trickle is what is tested
        }
    });
    assert_eq!(client.answer().status, 408);
    client.until_closed();
    trickling.join().expect("the trickle stops when the server closes");
}
