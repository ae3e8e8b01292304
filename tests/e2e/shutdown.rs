//! SIGINT and SIGTERM: stop accepting, let requests finish, exit 0. A second one exits at once.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::harness::{BOTH, Host};

#[test]
fn a_host_with_nothing_to_do_ends_at_once() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut host = Host::of("hello");
        host.signal(signal);
        let ended = host.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(TcpStream::connect(host.addr()).is_err());
    }
}

#[test]
fn requests_finish_first() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut host = Host::of("sse");
        let mut client = host.connect();
        client.ask("/?ms=300&count=4");
        assert_eq!(client.head().status, 200);
        client.chunk().expect("an event").expect("not the end");
        let mut connection = host.http2();
        let mut stream = connection.open("GET", "/?ms=300&count=4", &[], true);
        assert_eq!(stream.head().expect("a head").status, 200);

        host.signal(signal);
        host.stderr_with("finishing what runs");
        let mut events = 1;
        while client.chunk().expect("a whole body").is_some() {
            events += 1;
        }
        assert_eq!(events, 4);
        let rest = stream.rest().expect("a whole body");
        assert_eq!(String::from_utf8_lossy(&rest).matches("data: ").count(), 4);
        let ended = host.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("were cut"), "{}", ended.stderr);
    }
}

#[test]
fn nobody_is_accepted_while_requests_finish() {
    let mut host = Host::of("sse");
    let mut client = host.connect();
    client.ask("/?ms=100&count=30");
    assert_eq!(client.head().status, 200);
    host.signal(Signal::TERM);
    host.stderr_with("finishing what runs");
    client.chunk().expect("an event").expect("not the end");
    // The listener is closed soon after that line; what is in its backlog is reset.
    while TcpStream::connect(host.addr()).is_ok() {
        assert!(client.chunk().expect("an event").is_some(), "the host accepts until the last request has finished");
    }
    while client.chunk().expect("a whole body").is_some() {}
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn an_idle_connection_does_not_keep_a_host_alive() {
    let mut host = Host::of("hello");
    let mut client = host.connect();
    assert_eq!(client.get("/").status, 200);
    let mut connection = host.http2();
    assert_eq!(connection.get("/").status, 200);
    host.signal(Signal::TERM);
    assert_eq!(client.until_closed(), b"");
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn requests_that_take_longer_than_drain_are_cut() {
    let mut host = Host::with("sse").flag("--drain", "300ms").start();
    let mut client = host.connect();
    client.ask("/?ms=100");
    assert_eq!(client.head().status, 200);
    host.signal(Signal::TERM);
    let rest = client.until_closed();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut response is not complete");
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("longer than `drain` (300ms)"), "{}", ended.stderr);
}

#[test]
fn guests_that_compute_are_cut_too() {
    let mut host = Host::with("loops_after_head").flag("--drain", "300ms").start();
    let mut client = host.connect();
    client.ask("/");
    assert_eq!(client.head().status, 200);
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn guests_that_go_on_after_their_answers_are_cut_too() {
    let mut host = Host::with("sleeps_after_answer").flag("--drain", "300ms").flag("--deadline", "1h").start();
    for version in BOTH {
        assert_eq!(host.get(version, "/?ms=3600000").text(), "early\n");
    }
    host.signal(Signal::TERM);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("client_gone").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let mut host = Host::with("sse").flag("--drain", "1h").start();
        let mut client = host.connect();
        client.ask("/?ms=100");
        assert_eq!(client.head().status, 200);
        host.signal(first);
        host.stderr_with("finishing what runs");
        host.signal(second);
        let ended = host.ended();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(!client.until_closed().ends_with(b"0\r\n\r\n"), "a cut response is not complete");
    }
}
