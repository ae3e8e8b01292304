//! What a guest is told about its request and its client, and what the response says.

use crate::harness::{Answer, BOTH, Host, Http, field};

/// The head that the guest `reads_request_head` has got.
fn seen(answer: &Answer) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").or_else(|| line.split_once(' ')).unwrap_or((line, ""));
        // The guest writes values as Rust would.
        (name.to_owned(), value.replace("\\\"", "\""))
    };
    answer.text().lines().map(pair).collect()
}

fn ask(host: &Host, version: Http, headers: &[(&str, &str)]) -> (Answer, Vec<(String, String)>) {
    let answer = host.ask(version, "GET", "/a/b?c=d", headers, None).expect("a whole answer");
    assert_eq!(answer.status, 200);
    let seen = seen(&answer);
    (answer, seen)
}

#[test]
fn a_guest_is_always_told_scheme_and_authority() {
    let host = Host::of("reads_request_head");
    for version in BOTH {
        let (_, seen) = ask(&host, version, &[]);
        assert_eq!(field(&seen, "method"), Some("Method::Get"));
        assert_eq!(field(&seen, "scheme"), Some("Some(Scheme::Http)"));
        assert_eq!(field(&seen, "authority"), Some("Some(\"test\")"));
        assert_eq!(field(&seen, "path"), Some("Some(\"/a/b?c=d\")"));
    }
    let mut client = host.connect();
    client.send("GET http://elsewhere:81/x HTTP/1.1\r\nhost: test\r\n\r\n");
    let absolute = seen(&client.answer());
    assert_eq!(field(&absolute, "authority"), Some("Some(\"elsewhere:81\")"), "RFC 9112 section 3.2.2");
    assert_eq!(field(&absolute, "path"), Some("Some(\"/x\")"));
    let mut client = host.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let ours = format!("Some(\"{}\")", host.addr());
    assert_eq!(field(&seen(&client.answer()), "authority"), Some(ours.as_str()));
    let mut client = host.connect();
    client.send("GET / HTTP/1.1\r\nhost:\r\n\r\n");
    assert_eq!(field(&seen(&client.answer()), "authority"), Some(ours.as_str()));
}

#[test]
fn any_method_reaches_the_guest() {
    let host = Host::of("reads_request_head");
    for version in BOTH {
        for (method, told) in [("PATCH", "Method::Patch"), ("PURGE", "Method::Other(\"PURGE\")")] {
            let answer = host.ask(version, method, "/", &[], None).expect("a whole answer");
            assert_eq!(field(&seen(&answer), "method"), Some(told));
        }
    }
}

#[test]
fn every_request_has_an_id_of_its_own_in_request_response_and_log() {
    let host = Host::of("reads_request_head");
    let mut ids = Vec::new();
    for version in BOTH {
        for _ in 0..10 {
            let (answer, seen) = ask(&host, version, &[]);
            let id = answer.header("x-request-id").expect("an id").to_owned();
            assert_eq!(field(&seen, "x-request-id"), Some(id.as_str()));
            assert_eq!(field(&seen, "x-client-request-id"), None);
            let access = host.access(&answer);
            assert!(access.get("client_id").is_none(), "{access}");
            ids.push(id);
        }
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}

#[test]
fn an_id_of_the_clients_is_passed_on_beside_ours() {
    let host = Host::of("reads_request_head");
    for version in BOTH {
        let (answer, seen) = ask(&host, version, &[("x-request-id", "abc-123"), ("x-client-request-id", "forged")]);
        let id = answer.header("x-request-id").expect("an id");
        assert_ne!(id, "abc-123");
        assert_eq!(field(&seen, "x-request-id"), Some(id));
        assert_eq!(field(&seen, "x-client-request-id"), Some("abc-123"));
        assert_eq!(host.access(&answer)["client_id"], "abc-123");
    }
}

#[test]
fn an_id_of_the_clients_that_is_not_well_formed_is_dropped() {
    let host = Host::of("reads_request_head");
    let long = "x".repeat(129);
    for version in BOTH {
        for wrong in ["a b", "a\"b", "", long.as_str()] {
            let (answer, seen) = ask(&host, version, &[("x-request-id", wrong)]);
            assert_eq!(field(&seen, "x-client-request-id"), None, "{wrong}");
            assert!(host.access(&answer).get("client_id").is_none());
        }
    }
}

#[test]
fn a_stranger_cannot_say_who_it_is() {
    let host = Host::of("reads_request_head");
    let claims = [
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-anything", "1"),
    ];
    for version in BOTH {
        let (answer, seen) = ask(&host, version, &claims);
        let access = host.access(&answer);
        let peer = access["peer"].as_str().expect("text");
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
        let forwarded: Vec<_> = seen.iter().filter(|(name, _)| name.contains("forwarded")).collect();
        assert_eq!(forwarded, [&("forwarded".to_owned(), format!("for=\"{peer}\";proto=http"))]);
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_named_last() {
    for network in ["127.0.0.1", "127.0.0.0/8"] {
        let host = Host::with("reads_request_head").flag("--trusted-proxy", network).start();
        for version in BOTH {
            let headers =
                [("forwarded", "for=192.0.2.60"), ("x-forwarded-for", "192.0.2.60"), ("x-forwarded-proto", "https")];
            let (answer, seen) = ask(&host, version, &headers);
            let access = host.access(&answer);
            let peer = access["peer"].as_str().expect("text");
            let expected = format!("for=192.0.2.60, for=\"{peer}\";proto=http");
            assert_eq!(field(&seen, "forwarded"), Some(expected.as_str()));
            assert_eq!(field(&seen, "x-forwarded-for"), Some("192.0.2.60, 127.0.0.1"));
            assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
        }
    }
    let host = Host::with("reads_request_head").flag("--trusted-proxy", "10.0.0.0/8").start();
    let (_, seen) = ask(&host, Http::One, &[("x-forwarded-for", "192.0.2.60")]);
    assert_eq!(field(&seen, "x-forwarded-for"), None, "this peer is not the proxy");
}

#[test]
fn what_concerns_the_connection_stays_with_it() {
    let host = Host::of("reads_request_head");
    let headers = [
        ("connection", "keep-alive, x-hop, TE"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("proxy", "http://127.0.0.1:1"),
        ("x-stays", "1"),
    ];
    let (_, seen) = ask(&host, Http::One, &headers);
    for name in ["connection", "x-hop", "te", "keep-alive", "proxy-connection", "upgrade", "proxy"] {
        assert_eq!(field(&seen, name), None, "{name}");
    }
    assert_eq!(field(&seen, "x-stays"), Some("1"));
    let (_, seen) = ask(&host, Http::Two, &[("te", "trailers"), ("proxy", "http://127.0.0.1:1")]);
    assert_eq!((field(&seen, "te"), field(&seen, "proxy")), (None, None));
}

#[test]
fn traceparent_passes_through() {
    let host = Host::of("reads_request_head");
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for version in BOTH {
        let (_, seen) = ask(&host, version, &[("traceparent", sent), ("tracestate", "a=b")]);
        assert_eq!((field(&seen, "traceparent"), field(&seen, "tracestate")), (Some(sent), Some("a=b")));
    }
}

#[test]
fn an_upgrade_is_answered_as_if_it_had_not_been_asked_for() {
    let host = Host::of("hello");
    let headers = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13")];
    let answer = host.ask(Http::One, "GET", "/", &headers, None).expect("a whole answer");
    assert_eq!((answer.status, answer.text()), (200, "Hello World!"));
}
