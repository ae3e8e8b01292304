//! The host says what it did: who is to blame in the access log, what it refused and cut in the log, the status and the metrics.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Client, Host, Http, PATIENCE, Scratch, Setup, all_waiting, guest};

/// A host with one handler, and its control socket.
fn host(dir: &Scratch, name: &str, server: &str, limits: &str) -> Setup {
    let module = guest(name);
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[[handler]]\nname = \"{name}\"\nmodule = {module:?}\nlimits = {{ {limits} }}\n"
    );
    Setup::run(dir.file("astra.toml", config)).flag("--control", dir.join("control")).arg("--no-state")
}

fn status(dir: &Scratch) -> Value {
    let ended = Setup::bare().arg("status").arg("--json").flag("--control", dir.join("control")).end();
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Waits for a status of which `is_it` holds.
fn status_with(dir: &Scratch, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let status = status(dir);
        if is_it(&status) {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "{what}: {status}");
    }
}

/// The access lines of a host that has ended.
fn access_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] == "access").collect()
}

#[test]
fn what_is_cut_when_a_host_stops_is_drained_and_not_blamed_on_the_client() {
    let dir = Scratch::new();
    for (name, path, status) in [("slow", "/?ms=3600000", 504), ("sse", "/?ms=3600000", 200)] {
        let mut host = host(&dir, name, "drain = \"300ms\"", "deadline = \"1h\"").start();
        let mut client = host.connect();
        client.ask(path);
        let mut connection = host.http2();
        let _stream = connection.open("GET", path, &[], true);
        all_waiting(&dir.join("control"), "sleep", 2);
        host.signal(Signal::TERM);
        let lines = access_lines(&host.ended().stderr);
        let told: Vec<_> = lines.iter().map(|line| (&line["outcome"], &line["status"])).collect();
        assert_eq!(told, [(&"drained".into(), &status.into()); 2], "{name}: {lines:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_too_slow_and_not_gone() {
    let dir = Scratch::new();
    let host = host(&dir, "writes_without_end", "write_timeout = \"100ms\"", "").start();
    let mut client = Client::connect_narrow(host.addr());
    client.ask("/");
    let head = client.head();
    host.expect_outcome(head.header("x-request-id"), "client_too_slow");
    let mut connection = host.http2();
    // Kept, since a stream that is dropped is reset.
    let mut stream = connection.open("GET", "/", &[], true);
    let head = stream.head().expect("a head");
    host.expect_outcome(head.header("x-request-id"), "client_too_slow");
    assert!(status(&dir)["traffic"]["events"]["write_timeout"].as_u64() >= Some(2));
    host.stderr_with("clients are cut, since they take nothing of their answers: first 127.0.0.1:");
}

#[test]
fn a_body_that_is_too_large_has_one_name_however_that_is_found_out() {
    let dir = Scratch::new();
    let host = host(&dir, "reads_body_stalled", "max_body = \"1KiB\"", "").start();
    let chunk = format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(0x401));
    for request in [
        "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1025\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"),
    ] {
        let mut client = host.connect();
        client.send(&request);
        let answer = client.answer();
        let access = host.access(&answer);
        let expected = (&"body_too_large".into(), &413.into(), &answer.body.len().into());
        assert_eq!((&access["outcome"], &access["status"], &access["bytes_out"]), expected, "{access}");
    }
}

#[test]
fn a_full_queue_and_a_long_wait_are_told_apart_in_log_and_status() {
    for (limits, outcome) in [
        ("in_flight = 1, queue = 0, deadline = \"1h\"", "queue_full"),
        ("in_flight = 1, queue = 1, queue_timeout = \"100ms\", deadline = \"1h\"", "queue_timeout"),
    ] {
        let dir = Scratch::new();
        let host = host(&dir, "slow", "", limits).start();
        let mut running = host.connect();
        running.ask("/?ms=3600000");
        all_waiting(&dir.join("control"), "sleep", 1);
        let answer = host.get(Http::One, "/");
        assert_eq!(answer.status, 503);
        let access = host.access(&answer);
        assert_eq!((&access["outcome"], &access["bytes_out"]), (&outcome.into(), &answer.body.len().into()));
        assert_eq!(access["queue_ms"].as_u64() >= Some(100), outcome == "queue_timeout", "{access}");
        let status = status(&dir);
        assert_eq!((&status["handlers"][0]["refused"], &status["traffic"]["events"][outcome]), (&1.into(), &1.into()));
        host.stderr_with("requests are answered 503, since");
    }
}

#[test]
fn what_waits_to_be_started_is_in_the_status() {
    let dir = Scratch::new();
    let host = host(&dir, "slow", "", "in_flight = 1, queue = 9, queue_timeout = \"1h\", deadline = \"1h\"").start();
    let mut clients: Vec<Client> = (0..3).map(|_| host.connect()).collect();
    clients.iter_mut().for_each(|client| client.ask("/?ms=3600000"));
    let status = status_with(&dir, "two are queued", |status| status["traffic"]["queued"] == 2);
    let (traffic, handler) = (&status["traffic"], &status["handlers"][0]);
    assert_eq!((&handler["queued"], &traffic["in_flight"], &traffic["connections"]), (&2.into(), &1.into(), &3.into()));
    let text = Setup::bare().arg("status").flag("--control", dir.join("control")).end().stdout;
    assert!(text.contains("connections: 3 open, 3 accepted; requests: 1 in flight, 2 queued\n"), "{text}");
}

#[test]
fn without_an_access_log_refusals_are_told_and_counted_all_the_same() {
    let dir = Scratch::new();
    let setup = host(&dir, "hello", "header_timeout = \"100ms\"", "").no_log().flag("--access-log", "off");
    let host = setup.start();
    let mut client = host.connect();
    client.send("GET / HTTP/1.1\r\nhost:");
    assert_eq!(client.answer().status, 408);
    let line = host.stderr_with("do not arrive in time");
    assert!(line.contains(" warn astra_server") && line.contains("127.0.0.1:"), "{line}");
    assert_eq!(status(&dir)["traffic"]["events"]["head_timeout"], 1);
    let metrics = Client::connect_unix(&dir.join("control")).get("/metrics");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")));
    for line in [
        "# TYPE astra_events_total counter\n",
        "\nastra_events_total{event=\"head_timeout\"} 1\n",
        "\nastra_requests_total{handler=\"hello\"} 0\n",
        "\nastra_connections_total 1\n",
    ] {
        assert!(metrics.text().contains(line), "{line:?} is not in {}", metrics.text());
    }
}

#[test]
fn how_much_the_host_says_can_be_chosen() {
    for (level, variable, says) in [
        (Some("debug"), None, true),
        (None, Some("debug"), true),
        (Some("info"), Some("debug"), false),
        (None, Some("astra_server=debug"), false),
        (None, None, false),
    ] {
        let setup = level.into_iter().fold(Host::with("hello"), |setup, level| setup.flag("--log-level", level));
        let mut host = setup.environment("RUST_LOG", variable.unwrap_or_default()).start();
        // A client that gives up is worth a line to who wants to know all. In the middle of a head: there no answer can come before it.
        let mut client = host.connect();
        client.send("GET / HTTP/1.1\r\nhost:");
        client.half_close();
        client.until_closed();
        host.signal(Signal::TERM);
        let log = host.ended().stderr;
        let is_debug = |line: &Value| line["level"] == "debug";
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines.iter().any(is_debug), says, "{level:?} {variable:?}: {log}");
        let is_ours = |line: &Value| line["target"].as_str().is_some_and(|target| target.starts_with("astra"));
        assert!(lines.iter().filter(|line| is_debug(line)).all(is_ours), "{log}");
    }
}
