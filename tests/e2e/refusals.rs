//! What the host refuses without asking a guest: bad HTTP, too much of it, too slowly.

use crate::harness::{Answer, BOTH, Client, Host, Http};

/// Sends it on a connection of its own and returns the answer, after which the host must close.
fn refused(host: &Host, request: impl AsRef<[u8]>) -> Answer {
    let mut client: Client = host.connect();
    client.send(request);
    let answer = client.answer();
    assert_eq!(client.until_closed(), b"", "the connection is closed and nothing else is answered");
    answer
}

#[test]
fn malformed_requests_are_400_and_the_connection_is_closed() {
    let host = Host::of("hello");
    for wrong in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: one\r\nhost: two\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: test\r\na: b\rc\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        assert_eq!(refused(&host, wrong).status, 400, "{wrong:?}");
    }
    assert_eq!(host.get(Http::One, "/").status, 200);
}

#[test]
fn a_length_beside_chunks_does_not_smuggle_a_request() {
    let host = Host::of("hello");
    let mut client = host.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n",
    );
    let all = String::from_utf8(client.until_closed()).expect("text");
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
}

#[test]
fn trace_and_connect_are_405_with_allow() {
    let host = Host::of("hello");
    for request in ["TRACE / HTTP/1.1\r\nhost: test\r\n\r\n", "CONNECT test:80 HTTP/1.1\r\nhost: test\r\n\r\n"] {
        let answer = refused(&host, request);
        assert_eq!(answer.status, 405);
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", answer.headers);
    }
    assert_eq!(host.ask(Http::Two, "TRACE", "/", &[], None).expect("a whole answer").status, 405);
}

#[test]
fn what_is_refused_has_an_id_and_an_access_line() {
    let host = Host::with("hello").flag("--max-body", "1KiB").start();
    for (request, status) in [
        ("GET /x HTTP/1.1\r\n\r\n", 400),
        ("TRACE /x HTTP/1.1\r\nhost: test\r\n\r\n", 405),
        ("POST /x HTTP/1.1\r\nhost: test\r\ncontent-length: 1025\r\n\r\n", 413),
    ] {
        let answer = refused(&host, request);
        assert_eq!(answer.status, status);
        let access = host.access(&answer);
        assert_eq!((&access["status"], &access["path"]), (&status.into(), &"/x".into()), "{access}");
    }
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let host = Host::of("hello");
    let value = "x".repeat(100 << 10);
    assert_eq!(refused(&host, format!("GET / HTTP/1.1\r\nhost: test\r\na: {value}\r\n\r\n")).status, 431);
    let many: String = (0..2000).map(|n| format!("h{n}: x\r\n")).collect();
    assert_eq!(refused(&host, format!("GET / HTTP/1.1\r\nhost: test\r\n{many}\r\n")).status, 431);
    assert_eq!(host.get(Http::One, "/").status, 200);
    let head = [("a", value.as_str())];
    match host.ask(Http::Two, "GET", "/", &head, None) {
        Ok(answer) => assert_eq!(answer.status, 431),
        // A client of HTTP/2 knows the limit and may refuse by itself.
        Err(error) => assert!(!error.contains("timed out"), "{error}"),
    }
}

#[test]
fn a_body_that_says_it_is_too_large_is_413() {
    let host = Host::with("echo").flag("--max-body", "1KiB").start();
    for version in BOTH {
        assert_eq!(host.post(version, "/", &[b'x'; 1024]).status, 200, "{version:?}");
    }
    let answer = refused(&host, "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1025\r\n\r\n");
    assert_eq!(answer.status, 413);
    let mut connection = host.http2();
    let stream = connection.open("POST", "/", &[("content-length", "1025")], false);
    assert_eq!(stream.answer().expect("an answer").status, 413);
}

#[test]
fn a_body_that_becomes_too_large_is_413() {
    let host = Host::with("reads_body_stalled").flag("--max-body", "1KiB").start();
    let part = format!("200\r\n{}\r\n", "x".repeat(0x200));
    let request =
        format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{part}{part}{part}0\r\n\r\n");
    let mut client = host.connect();
    client.send(&request);
    let answer = client.answer();
    assert_eq!(answer.status, 413);
    let access = host.access(&answer);
    assert_eq!((&access["status"], &access["outcome"]), (&413.into(), &"body_too_large".into()), "{access}");

    let answer = host.ask(Http::Two, "POST", "/", &[], Some(&[b'x'; 1025])).expect("an answer");
    assert_eq!(answer.status, 413);
    assert_eq!(host.access(&answer)["outcome"], "body_too_large");
}

#[test]
fn a_body_that_becomes_too_large_after_the_head_cuts_the_response() {
    let host = Host::with("echo").flag("--max-body", "1KiB").start();
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
    let head = client.head();
    assert_eq!(head.status, 200);
    client.send(format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(0x400)));
    let rest = client.until_closed();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&rest));
}

#[test]
fn a_body_that_breaks_off_is_an_error_to_the_guest() {
    let host = Host::of("reads_body_stalled");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf ");
    client.half_close();
    let all = String::from_utf8(client.until_closed()).expect("text");
    assert!(!all.starts_with("HTTP/1.1 200"), "{all}");
}

#[test]
fn a_malformed_chunk_is_an_error_to_the_guest_and_ends_the_connection() {
    let host = Host::of("reads_body_stalled");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n");
    let all = String::from_utf8(client.until_closed()).expect("text");
    assert!(!all.starts_with("HTTP/1.1 200"), "{all}");
    assert_eq!(host.post(Http::One, "/", b"fine").status, 200);
}

#[test]
fn half_a_head_is_408() {
    let host = Host::of("hello");
    let mut client = host.connect();
    client.send("GET / HTTP/1.1\r\nhost:");
    assert_eq!(client.answer().status, 408);
    assert_eq!(client.until_closed(), b"");
}
