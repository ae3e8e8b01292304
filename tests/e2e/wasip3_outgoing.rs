//! `wasi:http/client` of WASI 0.3: a guest asks whom it was granted, and is told exactly what goes wrong.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Barrier, Mutex, mpsc},
};

use crate::harness::{
    BOTH, Host, Http, PATIENCE,
    origin::{Full, Origin, head, raw, silent, stalling, telling_heads, text},
};

const GUEST: &str = "wasip3_guest";
const MEGABYTE: usize = 1 << 20;

/// A host whose guests may ask `rule`.
fn host(rule: impl Into<String>) -> Host {
    Host::with(GUEST).flag("--outbound", rule.into()).start()
}

fn any_of_ours() -> Host {
    host("http://127.0.0.1:*")
}

/// What the guest answers with that asks `address`.
fn asked(host: &Host, version: Http, how: &str, address: SocketAddr) -> String {
    host.get(version, &format!("/outgoing/{how}?http://{address}/")).text().to_owned()
}

#[test]
fn what_was_granted_is_asked_over_one_connection() {
    let origin = Origin::http(|request| text(format!("{} {}", request.method(), request.uri())));
    let host = any_of_ours();
    for version in BOTH {
        for how in ["passes", "asks"] {
            for n in 0..5 {
                let answer = host.get(version, &format!("/outgoing/{how}?http://{}/a?n={n}", origin.address));
                let expected = if how == "asks" { "200 GET /a?n=N, no trailers" } else { "GET /a?n=N" };
                assert_eq!((answer.status, answer.text()), (200, expected.replace('N', &n.to_string()).as_str()));
            }
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn what_was_not_granted_is_denied_and_the_log_says_what_would_grant_it() {
    let origin = Origin::http(|_| text("never"));
    let port = origin.address.port();
    for (granted, url, code) in [
        ("http://127.0.0.1:1".to_owned(), format!("http://127.0.0.1:{port}/"), "HttpRequestDenied"),
        (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}/"), "HttpRequestDenied"),
        ("http://*:*".to_owned(), format!("http://127.0.0.1:{port}/"), "DestinationIpProhibited"),
        (format!("http://localhost:{port}"), format!("http://localhost:{port}/"), "DestinationIpProhibited"),
    ] {
        let host = host(granted);
        for version in BOTH {
            let answer = host.get(version, &format!("/outgoing/asks?{url}"));
            assert_eq!(answer.text(), format!("ErrorCode::{code}"), "{url}");
        }
        host.stderr_with("was denied");
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn what_goes_wrong_has_its_code_and_a_guest_that_passes_it_on_its_status() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let no_http = raw(|mut stream| head(&mut stream).and_then(|_| stream.write_all(b"hello?\r\n\r\n")));
    let hangs_up = raw(|mut stream| head(&mut stream).map(drop));
    let switches = raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
    });
    let host = any_of_ours();
    for version in BOTH {
        for (address, code) in [
            (closed, "ConnectionRefused"),
            (no_http, "HttpProtocolError"),
            (hangs_up, "ConnectionTerminated"),
            (switches, "HttpUpgradeFailed"),
        ] {
            assert_eq!(asked(&host, version, "asks", address), format!("ErrorCode::{code}"));
        }
        for how in ["posts", "puts", "posts-nothing"] {
            let told = asked(&host, version, how, closed);
            assert!(told.starts_with("ErrorCode::ConnectionRefused; "), "{how}: {told}");
        }
    }
    host.expect(&format!("/outgoing/passes?http://{closed}/"), 502, "bad_gateway");
    host.expect("/outgoing/passes?http://127.0.0.2:1/", 502, "bad_gateway");
}

#[test]
fn a_name_that_nobody_has_is_a_dns_error() {
    let host = host("http://*.invalid");
    for version in BOTH {
        let answer = host.get(version, "/outgoing/asks?http://nowhere.invalid/");
        // Without a network nobody can be asked; with one, there is no such name.
        let code =
            |rcode: &str| format!("ErrorCode::DnsError(DnsErrorPayload {{ rcode: Some({rcode:?}), info-code: None }})");
        assert!([code("NXDOMAIN"), code("SERVFAIL")].iter().any(|code| code == answer.text()), "{}", answer.text());
    }
}

#[test]
fn a_response_that_breaks_off_is_never_whole() {
    let half = raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    });
    let no_chunk = raw(|mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nno size\r\n")
    });
    let host = any_of_ours();
    for version in BOTH {
        assert_eq!(asked(&host, version, "asks", half), "200 half, ErrorCode::HttpResponseIncomplete");
        let code = r#"ErrorCode::HttpResponseTransferCoding(Some("chunked"))"#;
        assert_eq!(asked(&host, version, "asks", no_chunk), format!("200 half, {code}"));
    }
}

#[test]
fn an_answer_that_is_an_upstreams_breaks_off_with_it() {
    let (go_on, gone_on) = mpsc::channel();
    let gone_on = Mutex::new(gone_on);
    let origin = raw(move |mut stream| {
        head(&mut stream)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")?;
        gone_on.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("the client has half of it");
        Ok(())
    });
    let host = any_of_ours();
    let path = format!("/outgoing/passes?http://{origin}/");
    let mut client = host.connect();
    client.ask(&path);
    let head = client.head();
    assert_eq!(client.chunk().expect("a part").as_deref(), Some(&b"half"[..]));
    go_on.send(()).expect("it waits");
    assert_eq!(client.until_closed(), b"", "no last chunk");
    host.expect_outcome(head.header("x-request-id"), "unfinished");

    let mut connection = host.http2();
    let mut stream = connection.open("GET", &path, &[], true);
    let head = stream.head().expect("a head");
    assert_eq!(stream.chunk().expect("a part").as_deref(), Some(&b"half"[..]));
    go_on.send(()).expect("it waits");
    assert!(stream.chunk().expect_err("END_STREAM is for bodies that are complete").is_reset());
    assert_eq!(host.access(&head)["outcome"], "unfinished");
}

#[test]
fn time_is_up_when_the_guest_says_so() {
    let full = Full::new();
    let host = any_of_ours();
    for (address, told) in [
        (silent(), "ErrorCode::ConnectionReadTimeout"),
        (stalling(), "200 ab, ErrorCode::ConnectionReadTimeout"),
        (full.address, "ErrorCode::ConnectionTimeout"),
    ] {
        let answer = asked(&host, Http::One, "times-out", address);
        assert_eq!(answer.split(';').next(), Some(told), "{answer}");
    }
}

#[test]
fn a_head_goes_out_as_the_guest_means_it() {
    let (origin, told) = telling_heads();
    let host = any_of_ours();
    for version in BOTH {
        let answer = host.get(version, &format!("/outgoing/passes?http://{origin}"));
        assert_eq!((answer.text(), answer.header("x-public")), ("ok", Some("1")));
        assert_eq!((answer.header("x-private"), answer.header("keep-alive")), (None, None), "between those two only");
        let head = told.recv_timeout(PATIENCE).expect("a request has come");
        assert_eq!(head, format!("GET / HTTP/1.1\r\nhost: {origin}\r\n\r\n"), "no body, and nobody's chunks");

        let headers = [("x-kept", "1"), ("te", "trailers")];
        let path = format!("/outgoing/forwards?{origin}");
        assert_eq!(host.ask(version, "GET", &path, &headers, None).expect("a whole answer").text(), "ok");
        let head = told.recv_timeout(PATIENCE).expect("a request has come");
        assert!(head.contains("\r\nx-kept: 1\r\n") && head.contains(&format!("\r\nhost: {origin}\r\n")), "{head}");
        assert!(!head.contains("test") && !head.contains("\r\nte:"), "what was between the client and us: {head}");
    }
}

#[test]
fn what_is_started_at_once_is_asked_at_once() {
    let all = Arc::new(Barrier::new(8));
    let origin = Origin::http(move |_| {
        all.wait();
        text("x")
    });
    assert_eq!(asked(&any_of_ours(), Http::One, "eight", origin.address), "200 x, no trailers\n".repeat(8));
    assert_eq!(origin.connections(), 8);
}

#[test]
fn what_cannot_be_sent_is_told_by_its_code() {
    let origin = Origin::http(|_| text("here"));
    let host = any_of_ours();
    let expected = "\
another scheme: ErrorCode::HttpProtocolError
CONNECT: ErrorCode::HttpRequestMethodInvalid
a user: ErrorCode::HttpRequestUriInvalid
port 0: ErrorCode::HttpRequestUriInvalid
no authority: ErrorCode::HttpRequestUriInvalid
no path: answered
no scheme: ErrorCode::HttpRequestDenied
";
    for version in BOTH {
        assert_eq!(asked(&host, version, "cannot", origin.address), expected);
    }
}

#[test]
fn what_a_guest_drops_is_ended_and_disturbs_no_other() {
    let origin = Origin::http(|_| text("x".repeat(MEGABYTE)));
    let host = any_of_ours();
    for version in BOTH {
        assert_eq!(asked(&host, version, "drops", origin.address), "200 1048576, no trailers");
    }
}

#[test]
fn a_guest_has_so_many_requests_under_way_and_no_more() {
    let origin = raw(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    assert_eq!(asked(&any_of_ours(), Http::One, "hoards", origin), "128, then ErrorCode::ConnectionLimitReached");
}

#[test]
fn a_guest_that_waits_for_its_upstream_is_cut_and_its_request_with_it() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let host = Host::with(GUEST)
        .flag("--outbound", format!("http://{address}"))
        .flag("--deadline", "300ms")
        .flag("--max-workers", "1")
        .start();
    for version in BOTH {
        let answer = host.get(version, &format!("/outgoing/asks?http://{address}/"));
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"deadline".into()));
        let (mut stream, _) = silent.accept().expect("the guest has connected");
        // The request, and then the end or a reset: it is gone with its guest.
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(host.get(version, "/").status, 200, "the worker is free");
    }
    let patient = host_of(address);
    let mut client = patient.connect();
    let peer = client.local_addr().to_string();
    client.ask(&format!("/outgoing/asks?http://{address}/"));
    let (mut stream, _) = silent.accept().expect("the guest has connected");
    head(&mut stream).expect("a request");
    client.reset();
    let access = patient.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
    assert_eq!(access["outcome"], "client_gone", "{access}");
    let _ = stream.read_to_end(&mut Vec::new());
}

fn host_of(address: SocketAddr) -> Host {
    host(format!("http://{address}"))
}
