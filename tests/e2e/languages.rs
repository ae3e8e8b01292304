//! The examples in other languages and for other worlds do what their READMEs say, over HTTP/1.1 and HTTP/2.
//!
//! Where a toolchain is missing its test passes and says what was skipped, on the standard error, past the capture of tests' output.

use std::path::PathBuf;

use crate::harness::{BOTH, Client, Host, Http, Setup, foreign_guest, guest, pattern, skipped};

/// A host of an example, or a line that says why not.
fn host_of(example: &str) -> Option<Host> {
    match foreign_guest(example) {
        Ok(module) => Some(host(module)),
        Err(reason) => {
            skipped(&format!("the example `{example}`"), &reason);
            None
        }
    }
}

/// Compiling an interpreter may take longer than a test waits for what should happen soon.
fn host(module: PathBuf) -> Host {
    let mut host = Setup::run(module).begin();
    host.listens();
    host
}

fn says_hello_and_sends_back(host: &Host) {
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, answer.text()), (200, "Hello World!"), "{version:?}");
        assert_eq!(host.access(&answer)["outcome"], "ok");
        assert_eq!(host.get(version, "/nowhere").status, 404, "{version:?}");

        let body = pattern(300_000);
        let length = body.len().to_string();
        // Go's CGI reads as much as `content-length` says; over HTTP/1.1 the client says it anyway.
        let headers = [("content-length", &*length)];
        let headers = if version == Http::Two { &headers[..] } else { &[] };
        let answer = host.ask(version, "POST", "/echo", headers, Some(&body)).expect("a whole answer");
        assert_eq!(answer.status, 200, "{version:?}");
        assert!(answer.body == body, "{version:?}: {} bytes came back", answer.body.len());
    }
    let mut client = host.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    for byte in b"Hello" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "Hello", "byte by byte");
}

fn says_hello_and_streams_back(host: &Host) {
    says_hello_and_sends_back(host);
    nothing_waits_for_the_rest(host);
}

/// The second half of a body is not sent before the first one has come back.
fn nothing_waits_for_the_rest(host: &Host) {
    let mut client = host.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 11\r\n\r\nfirst");
    let head = client.head();
    assert_eq!(head.status, 200);
    let is_chunked = head.header("transfer-encoding") == Some("chunked");
    assert_eq!(read(&mut client, is_chunked, 5), b"first");
    client.send("second");
    assert_eq!(read(&mut client, is_chunked, 6), b"second");

    let mut connection = host.http2();
    let mut stream = connection.open("POST", "/echo", &[("content-length", "11")], false);
    let mut back = Vec::new();
    for (piece, length, is_last) in [("first", 5, false), ("second", 11, true)] {
        stream.send(piece.as_bytes(), is_last).expect("it is wanted");
        if !is_last {
            assert_eq!(stream.head().expect("a head").status, 200);
        }
        while back.len() < length {
            back.extend(stream.chunk().expect("no reset").expect("not the end"));
        }
    }
    assert_eq!(back, b"firstsecond");
}

fn read(client: &mut Client, is_chunked: bool, length: usize) -> Vec<u8> {
    if !is_chunked {
        return client.exactly(length).expect("the rest of it");
    }
    let mut body = Vec::new();
    while body.len() < length {
        body.extend(client.chunk().expect("a whole chunk").expect("not the end"));
    }
    body
}

/// Three lines, 100 ms apart.
fn counts(host: &Host) {
    for version in BOTH {
        assert_eq!(host.get(version, "/stream").text(), "1\n2\n3\n", "{version:?}");
    }
}

fn greets(host: &Host) {
    for version in BOTH {
        let answer = host.get(version, "/hello/you");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{version:?}");
        assert_eq!(answer.text(), r#"{"hello":"you"}"#, "{version:?}");
    }
}

#[test]
fn python_is_served() {
    let Some(host) = host_of("python") else { return };
    says_hello_and_streams_back(&host);
}

#[test]
fn javascript_is_served() {
    let Some(host) = host_of("javascript") else { return };
    says_hello_and_streams_back(&host);
    counts(&host);
}

#[test]
fn hono_is_served() {
    let Some(host) = host_of("hono") else { return };
    says_hello_and_streams_back(&host);
    counts(&host);
    greets(&host);
}

#[test]
fn axum_is_served() {
    let host = host(guest("axum-app"));
    says_hello_and_streams_back(&host);
    greets(&host);
}

#[test]
fn wstd_is_served() {
    let host = host(guest("wstd-app"));
    says_hello_and_streams_back(&host);
    for version in BOTH {
        assert_eq!(host.get(version, "/slow").text(), "100 ms later\n", "{version:?}");
    }
}

#[test]
fn waki_is_served() {
    says_hello_and_sends_back(&host(guest("waki_app")));
}

#[test]
fn wasip3_is_served() {
    let host = host(guest("wasip3_app"));
    says_hello_and_streams_back(&host);
    counts(&host);
}

#[test]
fn c_is_served() {
    let Some(host) = host_of("c") else { return };
    says_hello_and_streams_back(&host);
}

#[test]
fn go_is_served() {
    let Some(host) = host_of("go") else { return };
    says_hello_and_streams_back(&host);
}

/// An interpreter's memory is copied back from its image between requests.
#[test]
fn what_an_interpreter_has_counted_is_forgotten() {
    let Some(host) = host_of("hono") else { return };
    let mut client = host.connect();
    for _ in 0..50 {
        assert_eq!(client.get("/visits").text(), "1\n");
    }
}
