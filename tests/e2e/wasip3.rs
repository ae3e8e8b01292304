//! Guests of WASI 0.3: what is served of 0.2 is served of them, in the same way.

use crate::harness::{BOTH, Host, Http, Scratch, Setup, guest, pattern};

const GUEST: &str = "wasip3_guest";

#[test]
fn a_guest_of_0_3_says_hello() {
    let host = Host::of(GUEST);
    host.stdout_with("component, WASI HTTP 0.3.");
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, answer.text()), (200, "Hello World!"));
        assert_eq!(host.access(&answer)["outcome"], "ok");
        let told = host.get(version, "/request");
        assert_eq!(told.text(), r#"Method::Get Some(Scheme::Http) Some("test") /request"#);
        assert_eq!(host.get(version, "/sleeps-in-std").text(), "Hello World!", "0.2 inside of 0.3");
    }
    assert_eq!(host.get(Http::One, "/").header("content-length"), Some("12"), "it was complete before it went out");
}

#[test]
fn a_precompiled_guest_of_0_3_is_one_too() {
    let dir = Scratch::new();
    let compiled = dir.path().join("guest.cwasm");
    let made = Setup::bare().arg("compile").arg(guest(GUEST)).flag("--output", &compiled).end();
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let host = Setup::run(&compiled).arg("--trust-precompiled").start();
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

#[test]
fn what_is_sent_comes_back() {
    let host = Host::of(GUEST);
    let body = pattern(1_000_000);
    for version in BOTH {
        let answer = host.post(version, "/echo", &body);
        assert!(answer.body == body, "{version:?}: {} bytes came back", answer.body.len());
    }
    let mut client = host.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\n");
    assert_eq!(client.head().status, 200, "the answer begins before the request has ended");
    client.send("0\r\n\r\n");
}

#[test]
fn failures_are_told_as_those_of_0_2() {
    let host = Host::with(GUEST).flag("--deadline", "200ms").start();
    host.expect("/traps", 500, "trap");
    host.expect("/refuses", 504, "gateway_timeout");
    host.expect("/sleeps", 504, "deadline");
    host.expect("/spins", 504, "deadline");
    host.expect("/too-short", 500, "unfinished");
    host.expect_cut("/traps-later", "Hello World!", "trap");
}

#[test]
fn a_guest_is_cut_by_its_limits_and_by_its_client() {
    let host = Host::with(GUEST).flag("--stream-deadline", "100ms").start();
    host.expect_cut("/slowly", "Hello World!", "deadline");
    let host = Host::of(GUEST);
    let mut client = host.connect();
    client.ask("/without-end");
    let head = client.head();
    drop(client);
    host.expect_outcome(head.header("x-request-id"), "client_gone");
}

#[test]
fn names_are_looked_up_where_that_was_granted() {
    let host = Host::with(GUEST).flag("--dns", "localhost").start();
    let found = host.get(Http::One, "/looks-up?localhost");
    assert!(found.text().starts_with("Ok([IpAddress::"), "{}", found.text());
    let denied = host.get(Http::One, "/looks-up?example.com");
    assert!(denied.text().contains("AccessDenied"), "{}", denied.text());
    host.stderr_with("dns = ");
}

#[test]
fn guests_of_both_lines_stand_side_by_side() {
    let dir = Scratch::new();
    let handler = |name: &str| {
        format!("[[handler]]\nname = {name:?}\nmodule = {:?}\nroute = \"/{name}\"\n", guest(name).display().to_string())
    };
    let config = [handler(GUEST), handler("hello"), handler("cgi")].concat();
    let host = Setup::run(dir.file("astra.toml", config)).start();
    for version in BOTH {
        for name in [GUEST, "hello", "cgi"] {
            assert_eq!(host.get(version, &format!("/{name}")).text(), "Hello World!", "{name}");
        }
    }
}
