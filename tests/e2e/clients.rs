//! Clients that go away, stop half-way, stay silent, or are too many.

use crate::harness::{Host, Http};

#[test]
fn a_guest_that_sleeps_is_cancelled_when_its_client_goes_away() {
    let host = Host::of("sse");
    let mut client = host.connect();
    client.ask("/?ms=3600000");
    let head = client.head();
    client.chunk().expect("an event").expect("not the end");
    client.reset();
    let access = host.access_of(head.header("x-request-id").expect("every answer has an id"));
    assert_eq!((&access["outcome"], &access["status"]), (&"client_gone".into(), &200.into()), "{access}");
}

#[test]
fn a_guest_that_computes_is_cancelled_when_its_client_goes_away() {
    let host = Host::of("loops_after_head");
    let mut client = host.connect();
    client.ask("/");
    let head = client.head();
    client.reset();
    let access = host.access_of(head.header("x-request-id").expect("every answer has an id"));
    assert_eq!((&access["outcome"], &access["status"]), (&"client_gone".into(), &200.into()), "{access}");
}

#[test]
fn a_guest_that_writes_is_cancelled_when_its_client_goes_away() {
    let host = Host::of("writes_without_end");
    let mut client = host.connect();
    client.ask("/");
    let head = client.head();
    client.exactly(1 << 20).expect("a part of it");
    client.reset();
    let access = host.access_of(head.header("x-request-id").expect("every answer has an id"));
    assert_eq!((&access["outcome"], &access["status"]), (&"client_gone".into(), &200.into()), "{access}");
    assert!(access["bytes_out"].as_u64().expect("a number") >= 1 << 20, "{access}");
}

#[test]
fn a_guest_that_reads_is_cancelled_when_its_client_goes_away() {
    let host = Host::of("reads_body_stalled");
    let mut client = host.connect();
    let peer = client.local_addr().to_string();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n");
    assert_eq!(client.head().status, 100, "the guest has begun to read");
    client.reset();
    let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
    assert_eq!((&access["outcome"], &access["status"]), (&"client_gone".into(), &499.into()), "{access}");
}

#[test]
fn a_client_that_ends_its_body_early_is_logged_as_it_was_answered() {
    let host = Host::of("reads_body_stalled");
    let mut client = host.connect();
    let peer = client.local_addr().to_string();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf ");
    client.half_close();
    let all = String::from_utf8(client.until_closed()).expect("text");
    let access = host.json("what became of it", |line| line["kind"] == "access" && line["peer"] == peer);
    // hyper answers or closes, or the guest does, which is told of an error; whichever comes first.
    let (outcome, status, bytes) = match all.split_once("\r\n\r\n") {
        None => ("client_gone", 499, 0),
        Some((head, body)) if head.starts_with("HTTP/1.1 500 ") => ("ok", 500, body.len()),
        Some((head, body)) => {
            assert!(head.starts_with("HTTP/1.1 400 "), "{all}");
            ("bad_request", 400, body.len())
        }
    };
    assert_eq!((&access["outcome"], &access["status"]), (&outcome.into(), &status.into()), "{access}");
    assert_eq!(access["bytes_out"], bytes, "{access}");
}

#[test]
fn a_guest_is_cancelled_when_its_stream_is_reset() {
    for name in ["sse", "loops_after_head", "writes_without_end"] {
        let host = Host::of(name);
        let mut connection = host.http2();
        let mut stream = connection.open("GET", "/?ms=3600000", &[], true);
        let head = stream.head().expect("a head");
        stream.cancel();
        let access = host.access(&head);
        assert_eq!(access["outcome"], "client_gone", "{name}: {access}");
        // The connection stays: only one of its streams is over.
        assert_eq!(connection.open("GET", "/", &[], true).head().expect("a head").status, 200);
    }
}

#[test]
fn the_worker_of_a_guest_whose_client_left_is_free_again() {
    let host = Host::with("sse").flag("--max-workers", "1").start();
    for _ in 0..3 {
        let mut client = host.connect();
        client.ask("/?ms=3600000");
        assert_eq!(client.head().status, 200);
        client.reset();
        assert_eq!(host.get(Http::One, "/?count=1").text().matches("data: ").count(), 1);
    }
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let host = Host::of("slow");
    let mut client = host.connect();
    client.ask("/?ms=200");
    client.half_close();
    let answer = client.answer();
    assert_eq!(answer.text(), "slept 200 ms\n");
    assert_eq!(host.access(&answer)["outcome"], "ok");
}

#[test]
fn silent_connections_cost_no_worker() {
    let host = Host::with("hello").flag("--max-workers", "1").start();
    let silent: Vec<_> = (0..100).map(|_| host.connect()).collect();
    let mut slow: Vec<_> = (0..100).map(|_| host.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nho");
    }
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
    assert_eq!(host.get(Http::Two, "/").text(), "Hello World!");
    for client in &mut slow {
        client.send("st: test\r\n\r\n");
        assert_eq!(client.answer().text(), "Hello World!");
    }
    drop(silent);
}

#[test]
fn a_request_that_no_worker_takes_is_503_with_retry_after() {
    let host = Host::with("sse").flag("--max-workers", "1").start();
    let mut first = host.connect();
    first.ask("/?ms=100");
    assert_eq!(first.head().status, 200);
    let mut second = host.connect();
    second.ask("/second");
    let answer = second.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()), "{:?}", answer.headers);
    let access = host.access(&answer);
    assert_eq!((&access["status"], &access["path"]), (&503.into(), &"/second".into()), "{access}");
}

#[test]
fn a_request_that_waits_for_a_worker_gets_it() {
    let host = Host::with("slow").flag("--max-workers", "1").start();
    let mut clients: Vec<_> = (0..10).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.ask("/?ms=50");
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "slept 50 ms\n");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = Host::of("slow");
    let mut client = host.connect();
    client.send("GET /?ms=100 HTTP/1.1\r\nhost: test\r\n\r\nGET /?ms=1 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "slept 100 ms\n");
    assert_eq!(client.answer().text(), "slept 1 ms\n");
}
