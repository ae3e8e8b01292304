//! What `wasi:http/outgoing-handler` 0.2 says about each behaviour that guests and upstreams may have, as in `conformance.rs`: one small guest
//! for each, whose header says what has to come of it.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Barrier, Mutex, mpsc},
};

use bytes::Bytes;
use http::Request;

use crate::harness::{
    BOTH, Host, Http, PATIENCE, field,
    origin::{Full, Origin, head, raw, silent, stalling, text},
};

/// A host of a guest that may ask the servers of these tests.
fn asking(guest: &str) -> Host {
    Host::with(guest).flag("--outbound", "http://127.0.0.1:*").start()
}

#[test]
fn a_request_by_any_method_arrives_as_it_was_made() {
    fn seen(request: &Request<Bytes>) -> String {
        let all = |name: &str| {
            let values = request.headers().get_all(name).iter();
            values.map(|value| value.to_str().expect("ASCII")).collect::<Vec<_>>().join(",")
        };
        let body = String::from_utf8_lossy(request.body());
        let is_framed = !all("content-length").is_empty() || !all("transfer-encoding").is_empty();
        format!("{} {} {} {} {is_framed} {body}", request.method(), request.uri(), all("host"), all("x-test"))
    }
    let origin = Origin::http(|request| text(seen(&request)));
    let at = origin.address;
    let answered =
        |told: &str, method: &str, rest: &str| format!("Method::{told}: 200 {method} /a?b=c {at} one,two {rest}");
    let expected = [
        answered("Get", "GET", "false "),
        "Method::Head: 200 ".to_owned(),
        answered("Post", "POST", "true posted"),
        answered("Put", "PUT", "true put"),
        answered("Patch", "PATCH", "true patched"),
        answered("Delete", "DELETE", "false "),
        answered("Options", "OPTIONS", "false "),
        answered("Trace", "TRACE", "false "),
        answered("Other(\"BREW\")", "BREW", "false "),
        answered("Other(\"GET\")", "GET", "false "),
    ];
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    asking("asks_by_every_method").expect_lines(&format!("/?http://{at}/a?b=c"), &expected);
}

#[test]
fn a_body_is_framed_by_what_is_known_when_its_head_is_sent() {
    let origin = Origin::http(|request| {
        let framed = ["content-length", "transfer-encoding"].map(|name| request.headers().get(name));
        let framed = framed.map(|value| value.map_or("-", |value| value.to_str().expect("ASCII"))).join(" ");
        text(format!("{framed} {}", String::from_utf8_lossy(request.body())))
    });
    asking("frames_its_bodies").expect_lines(
        &format!("/?http://{}", origin.address),
        &[
            "Method::Post none: 200 0 - ",
            "Method::Post empty, before: 200 0 - ",
            "Method::Post before: 200 4 - some",
            "Method::Post empty, after: 200 - chunked ",
            "Method::Post after: 200 - chunked some",
            "Method::Get none: 200 - - ",
            "Method::Get empty, before: 200 - - ",
            "Method::Get before: 200 4 - some",
            "Method::Get empty, after: 200 - - ",
            "Method::Get after: 200 - chunked some",
        ],
    );
}

#[test]
fn no_path_is_the_empty_one_and_goes_out_as_a_slash() {
    let origin = Origin::http(|request| text(request.uri().to_string()));
    asking("asks_without_a_path").expect_lines(
        &format!("/?http://{}", origin.address),
        &["None: 200 /", "Some(\"\"): 200 /", "Some(\"?a=b\"): 200 /?a=b"],
    );
}

#[test]
fn a_request_that_cannot_be_sent_has_an_error_code_and_traps_nobody() {
    let host = Host::with("sends_impossible_requests")
        .flag("--outbound", "http://127.0.0.1:*")
        .flag("--outbound", "http://name.invalid")
        .start();
    for version in BOTH {
        let answer = host.get(version, "/");
        let pairs = answer.text().lines().map(|line| line.split_once(": ").expect("a pair"));
        let codes: Vec<_> = pairs.map(|(what, code)| (what.to_owned(), code.to_owned())).collect();
        for (what, code) in [
            ("no authority", "ErrorCode::HttpRequestUriInvalid"),
            ("no scheme", "ErrorCode::HttpRequestDenied"),
            ("unknown scheme", "ErrorCode::HttpProtocolError"),
            ("port out of range", "ErrorCode::HttpRequestUriInvalid"),
            ("user", "ErrorCode::HttpRequestUriInvalid"),
            ("CONNECT", "ErrorCode::HttpRequestMethodInvalid"),
            ("length without body", "ErrorCode::HttpRequestBodySize(Some(0))"),
            ("nobody listens", "ErrorCode::ConnectionRefused"),
        ] {
            assert_eq!(field(&codes, what), Some(code), "{what}");
        }
        // Without a network nobody can be asked; with one, there is no such name.
        let unknown = field(&codes, "unknown name").expect("it was asked");
        assert!(unknown.starts_with("ErrorCode::DnsError"), "{unknown}");
        assert!(unknown.contains("NXDOMAIN") || unknown.contains("SERVFAIL"), "{unknown}");
    }
}

#[test]
fn a_request_that_is_not_as_long_as_it_says_is_never_whole() {
    let bodies = Arc::<Mutex<Vec<Bytes>>>::default();
    let whole = Arc::clone(&bodies);
    let origin = Origin::http(move |request| {
        whole.lock().expect("not poisoned").push(request.into_body());
        text("whole")
    });
    asking("lies_about_outgoing_length").expect_lines(
        &format!("/?http://{}/", origin.address),
        &[
            "11 bytes: write accepted, then open, finish Ok(()), answered true",
            "3 bytes: write accepted, then open, finish Err(ErrorCode::HttpRequestBodySize(Some(3))), answered false",
            "18 bytes: write Some(ErrorCode::HttpRequestBodySize(Some(18))), then StreamError::Closed, \
             finish Err(ErrorCode::HttpRequestBodySize(Some(18))), answered false",
        ],
    );
    assert_eq!(*bodies.lock().expect("not poisoned"), ["long enough"; 2]);
}

#[test]
fn a_response_that_is_longer_than_it_says_is_told_to_its_guest() {
    let host = Host::of("lies_about_length");
    for version in BOTH {
        let answer = host.get(version, "/long");
        let id = answer.header("x-request-id").expect("every answer has an id");
        for said in ["write: refused", "finish: refused"] {
            host.json(said, |line| line["kind"] == "guest" && line["id"] == id && line["text"] == said);
        }
    }
}

#[test]
fn a_large_body_is_written_as_the_upstream_takes_it() {
    let origin = Origin::http(|request| {
        let is_same = request.body().iter().copied().eq((0..4 << 20).map(|n: u32| n.wrapping_mul(251) as u8));
        text(is_same.to_string())
    });
    asking("posts_a_large_body").expect_lines(&format!("/?http://{}/", origin.address), &["200 true"]);
}

#[test]
fn a_guest_writes_what_it_is_allowed_and_waits_for_more() {
    let host = asking("writes_without_permission");
    for version in BOTH {
        let (go, may_go) = mpsc::channel();
        let may_go = Mutex::new(may_go);
        let origin = raw(move |mut stream| {
            head(&mut stream)?;
            may_go.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("is told");
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        let path = format!("/?http://{origin}/");
        let id = match version {
            Http::One => {
                let mut client = host.connect();
                client.ask(&path);
                let id = client.head().header("x-request-id").map(str::to_owned);
                assert_eq!(client.chunk().expect("a chunk").expect("not the last"), b"full\n");
                go.send(()).expect("waits for it");
                assert_eq!(client.chunk().expect("a chunk").expect("not the last"), b"allowed again: true\n");
                assert_eq!(client.chunk().expect("a chunk"), None);
                id
            }
            Http::Two => {
                let mut connection = host.http2();
                let mut stream = connection.open("GET", &path, &[], true);
                let id = stream.head().expect("a head").header("x-request-id").map(str::to_owned);
                assert_eq!(stream.chunk().expect("data").expect("not the end"), "full\n");
                go.send(()).expect("waits for it");
                assert_eq!(stream.rest().expect("a whole answer"), b"allowed again: true\n");
                id
            }
        };
        host.expect_outcome(id.as_deref(), "ok");
    }
}

#[test]
fn a_guest_that_writes_more_than_it_was_allowed_traps() {
    let origin = raw(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop));
    asking("writes_without_permission").expect(&format!("/trap?http://{origin}/"), 500, "trap");
}

#[test]
fn trailers_go_upstream_and_come_back() {
    let (tell, told) = mpsc::channel();
    let origin = raw(move |mut stream| {
        head(&mut stream)?;
        let (mut body, mut byte) = (Vec::new(), [0]);
        while !body.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            body.push(byte[0]);
        }
        tell.send(String::from_utf8(body)).expect("is waited for");
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-got\r\n\r\n2\r\nab\r\n0\r\nx-got: 4\r\n\r\n",
        )
    });
    asking("sends_trailers_upstream")
        .expect_lines(&format!("/?http://{origin}/"), &["ab, [(\"x-got\", [52])], Err(HeaderError::Immutable)"]);
    for _ in BOTH {
        let body = told.recv_timeout(PATIENCE).expect("a request has come");
        assert_eq!(body.as_deref(), Ok("4\r\ndata\r\n0\r\nx-sum: 4\r\n\r\n"));
    }
}

#[test]
fn what_was_taken_is_not_given_twice() {
    let origin = Origin::http(|_| text("once"));
    asking("takes_everything_twice").expect_lines(
        &format!("/?http://{}/", origin.address),
        &[
            "outgoing-request.body: refused",
            "outgoing-body.write: refused",
            "future-incoming-response.get: refused",
            "incoming-response.consume: refused",
            "incoming-body.stream: refused",
            "the stream itself: accepted",
            "future-trailers.get, first: accepted",
            "future-trailers.get: refused",
            "incoming-request.consume: refused",
            "outgoing-response.body: refused",
        ],
    );
}

#[test]
fn an_exchange_that_is_dropped_ends_there_and_then() {
    let host = asking("drops_exchanges_early");
    for (path, answer, sent) in [
        ("/future", "", ""),
        ("/response", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", ""),
        ("/body", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx", ""),
        ("/request-body", "", "A\r\nhalf of it\r\n"),
    ] {
        for version in BOTH {
            let (tell, told) = mpsc::channel();
            let origin = raw(move |mut stream| {
                let tell = |what| tell.send(what).expect("is waited for");
                head(&mut stream)?;
                let mut body = vec![0; sent.len()];
                stream.read_exact(&mut body)?;
                stream.write_all(answer.as_bytes())?;
                tell(String::from_utf8_lossy(&body).into_owned());
                let mut rest = Vec::new();
                // The end or a reset.
                let _ = stream.read_to_end(&mut rest);
                tell(String::from_utf8_lossy(&rest).into_owned());
                Ok(())
            });
            let path = format!("{path}?http://{origin}/");
            let has_begun = || assert_eq!(told.recv_timeout(PATIENCE).expect("a request has come"), sent, "{path}");
            let has_ended = || assert_eq!(told.recv_timeout(PATIENCE).expect("it ends"), "", "no more of it: {path}");
            let answer = match version {
                Http::One => {
                    let mut client = host.connect();
                    client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n"));
                    has_begun();
                    client.send("1");
                    has_ended();
                    client.send("2");
                    client.answer()
                }
                Http::Two => {
                    let mut connection = host.http2();
                    let mut stream = connection.open("POST", &path, &[], false);
                    has_begun();
                    stream.send(b"1", false).expect("the host reads");
                    has_ended();
                    stream.send(b"2", true).expect("the host reads");
                    stream.answer().expect("a whole answer")
                }
            };
            assert_eq!((answer.status, answer.text()), (200, "dropped\n"), "{path}");
        }
    }
}

#[test]
fn each_time_out_ends_what_it_is_for() {
    let full = Full::new();
    let host = asking("waits_no_longer_than");
    for (path, address, ended) in [
        ("/connect", full.address, "ErrorCode::ConnectionTimeout"),
        ("/first-byte", silent(), "ErrorCode::ConnectionReadTimeout"),
        ("/between-bytes", stalling(), "200 ab then Some(ErrorCode::ConnectionReadTimeout)"),
    ] {
        host.expect_lines(&format!("{path}?http://{address}/"), &["set true, read back true", ended]);
    }
}

#[test]
fn many_upstreams_are_asked_together_and_told_of_one_by_one() {
    let host = asking("sums_many_upstreams");
    for version in BOTH {
        let (go, may_go) = mpsc::channel();
        let (may_go, all) = (Mutex::new(may_go), Barrier::new(3));
        let origin = Origin::http(move |request| {
            all.wait();
            if request.uri().path() == "/late" {
                may_go.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("is told");
            }
            text("x".repeat(100_000))
        });
        let url = |path: &str| format!("http://{}/{path}", origin.address);
        let urls = [url("late"), "http://127.0.0.2:1/".to_owned(), url("one"), url("two")];
        let (early, late) = match version {
            Http::One => {
                let mut client = host.connect();
                let headers: String = urls.iter().map(|url| format!("url: {url}\r\n")).collect();
                client.send(format!("GET / HTTP/1.1\r\nhost: test\r\n{headers}\r\n"));
                assert_eq!(client.head().status, 200);
                let mut early = String::new();
                while early.lines().count() < 3 {
                    let chunk = client.chunk().expect("a chunk").expect("not the last");
                    early += std::str::from_utf8(&chunk).expect("a text");
                }
                go.send(()).expect("waits for it");
                let late = client.chunk().expect("a chunk").expect("not the last");
                assert_eq!(client.chunk().expect("a chunk"), None);
                (early, late)
            }
            Http::Two => {
                let mut connection = host.http2();
                let headers: Vec<_> = urls.iter().map(|url| ("url", url.as_str())).collect();
                let mut stream = connection.open("GET", "/", &headers, true);
                assert_eq!(stream.head().expect("a head").status, 200);
                let mut early = String::new();
                while early.lines().count() < 3 {
                    let chunk = stream.chunk().expect("data").expect("not the end");
                    early += std::str::from_utf8(&chunk).expect("a text");
                }
                go.send(()).expect("waits for it");
                (early, stream.rest().expect("a whole answer"))
            }
        };
        let done = |path: &str| format!("{}: 100000 bytes, sum 12000000", url(path));
        let mut early: Vec<_> = early.lines().map(str::to_owned).collect();
        early[1..].sort_unstable();
        assert_eq!(early, ["http://127.0.0.2:1/: ErrorCode::HttpRequestDenied".to_owned(), done("one"), done("two")]);
        assert_eq!(String::from_utf8_lossy(&late).trim_end(), done("late"));
    }
}

#[test]
fn each_failure_of_an_upstream_has_its_error_code() {
    let host = asking("tells_upstream_errors");
    let large = format!("HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n", "x".repeat(256 << 10));
    for (answer, told) in [
        ("", "ErrorCode::ConnectionTerminated"),
        ("HTTP/1.1 200 OK\r\ncontent-le", "ErrorCode::ConnectionTerminated"),
        ("nonsense\r\n\r\n", "ErrorCode::HttpProtocolError"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "ErrorCode::HttpProtocolError"),
        (&large, "ErrorCode::HttpResponseHeaderSectionSize(None)"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            "ErrorCode::HttpUpgradeFailed",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "200 half then Some(ErrorCode::HttpResponseIncomplete)"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "200 half then Some(ErrorCode::HttpResponseIncomplete)",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n",
            "200 half then Some(ErrorCode::HttpResponseTransferCoding(Some(\"chunked\")))",
        ),
        // Nothing is wrong with these.
        (
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
            "200 whole",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nwhole", "200 whole"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "204 "),
        ("HTTP/1.1 599 Whatever\r\ncontent-length: 0\r\n\r\n", "599 "),
    ] {
        let answer = answer.to_owned();
        let origin = raw(move |mut stream| head(&mut stream).and_then(|_| stream.write_all(answer.as_bytes())));
        host.expect_lines(&format!("/?http://{origin}/"), &[told]);
    }
    host.expect_lines("/?http://127.0.0.1:1/", &["ErrorCode::ConnectionRefused"]);
    host.expect_lines("/?http://127.0.0.2:1/", &["ErrorCode::HttpRequestDenied"]);
}

#[test]
fn an_upstream_without_tls_and_one_that_is_not_public_have_their_codes() {
    let plain = raw(|mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    let host = Host::with("tells_upstream_errors")
        .flag("--outbound", "https://127.0.0.1:*")
        .flag("--outbound", "http://*:*")
        .start();
    host.expect_lines(&format!("/?https://{plain}/"), &["ErrorCode::TlsProtocolError"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    host.expect_lines(&format!("/?http://{address}/"), &["ErrorCode::DestinationIpProhibited"]);
    listener.set_nonblocking(true).expect("a socket");
    assert!(listener.accept().is_err(), "nobody has come");
}
