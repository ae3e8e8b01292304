//! Many handlers and many clients in one host: what each may have of it, and that the others get theirs.

use std::time::{Duration, Instant};

use crate::harness::{BOTH, Client, Host, Scratch, Setup, all_waiting, guest, hostility};

/// A host with the handlers `slow` (at `/slow`) and `hello` (at `/hello`).
fn two_handlers(dir: &Scratch, server: &str, limits: &str) -> Host {
    beside_hello(dir, server, "slow", "/slow", limits)
}

/// A host with a handler at `route`, and `hello` (at `/hello`).
fn beside_hello(dir: &Scratch, server: &str, name: &str, route: &str, limits: &str) -> Host {
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n{server}\n[[handler]]\nname = {name:?}\nmodule = {module:?}\nroute = {route:?}\nlimits = {{ \
         {limits} }}\n[[handler]]\nname = \"hello\"\nmodule = {hello:?}\nroute = \"/hello\"\n",
        module = guest(name),
        hello = guest("hello"),
    );
    Setup::run(dir.file("astra.toml", config)).flag("--control", dir.join("control")).start()
}

/// `ps`, until so many requests have been started and have not ended.
fn expect_running(dir: &Scratch, count: usize) {
    let started = Instant::now();
    loop {
        let listed = Setup::bare().arg("ps").arg("--json").flag("--control", dir.join("control")).end();
        let requests: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).expect("it is a list in JSON");
        if requests.len() == count {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{requests:?}");
    }
}

const HOUR: &str = "/slow?ms=3600000";

#[test]
fn a_slow_handler_leaves_the_others_their_workers_and_is_503_beyond_its_queue() {
    let dir = Scratch::new();
    let host =
        two_handlers(&dir, "max_workers = 4", "in_flight = 2, queue = 1, queue_timeout = \"1h\", deadline = \"1h\"");
    let mut slow: Vec<Client> = (0..2).map(|_| host.connect()).collect();
    slow.iter_mut().for_each(|client| client.ask(HOUR));
    all_waiting(&dir.join("control"), "sleep", 2);
    let mut queued = host.connect();
    queued.ask("/slow?ms=1");
    // Served later than that has come, and so queued.
    host.expect("/hello", 200, "ok");

    let mut client = host.connect();
    client.ask(HOUR);
    let refused = client.answer();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let line = host.access(&refused);
    assert_eq!((&line["handler"], &line["status"]), (&"slow".into(), &503.into()));
    for _ in 0..10 {
        host.expect("/hello", 200, "ok");
    }
    slow.into_iter().for_each(Client::reset);
    assert_eq!(queued.answer().status, 200, "its turn, since the others are gone");
}

#[test]
fn without_bounds_of_its_own_a_handler_leaves_a_quarter_to_others() {
    let dir = Scratch::new();
    let host = two_handlers(&dir, "max_workers = 8", "deadline = \"1h\"");
    let mut slow: Vec<Client> = (0..10).map(|_| host.connect()).collect();
    slow.iter_mut().for_each(|client| client.ask(HOUR));
    all_waiting(&dir.join("control"), "sleep", 6);
    for _ in 0..10 {
        host.expect("/hello", 200, "ok");
    }
}

#[test]
fn however_many_handlers_are_slow_the_others_have_a_quarter() {
    let dir = Scratch::new();
    let handler = |name: &str, module: &str| {
        format!(
            "[[handler]]\nname = \"{name}\"\nmodule = {:?}\nroute = \"/{name}\"\nlimits = {{ deadline = \"1h\" }}\n",
            guest(module)
        )
    };
    let handlers =
        [("a", "slow"), ("b", "slow"), ("c", "slow"), ("hello", "hello")].map(|(name, of)| handler(name, of));
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nmax_workers = 12\n";
    let config = dir.file("astra.toml", format!("{server}{}", handlers.concat()));
    let host = Setup::run(config).flag("--control", dir.join("control")).start();
    let mut slow: Vec<Client> = (0..36).map(|_| host.connect()).collect();
    for (client, name) in slow.iter_mut().zip(["a", "b", "c"].into_iter().cycle()) {
        client.ask(&format!("/{name}?ms=3600000"));
    }
    all_waiting(&dir.join("control"), "sleep", 9);
    for _ in 0..10 {
        host.expect("/hello", 200, "ok");
    }
}

/// The one worker is taken, and the one place in the queue.
#[test]
fn what_the_host_answers_itself_waits_for_no_guest() {
    let dir = Scratch::new();
    let server = "max_workers = 2\nhealth = \"/slow/health\"";
    let host = two_handlers(&dir, server, "in_flight = 1, queue = 1, queue_timeout = \"1h\", deadline = \"1h\"");
    let mut slow = host.connect();
    slow.ask(HOUR);
    all_waiting(&dir.join("control"), "sleep", 1);
    let mut queued: Vec<Client> = (0..2).map(|_| host.connect()).collect();
    queued.iter_mut().for_each(|client| client.ask(HOUR));
    // One of them is queued, the other is refused.
    host.json("a refusal", |line| line["kind"] == "access" && line["status"] == 503);
    for version in BOTH {
        let answer = host.get(version, "/slow/health");
        assert_eq!((answer.status, answer.text()), (200, "ready\n"));
        let line = host.access(&answer);
        assert_eq!((&line["handler"], &line["outcome"], &line["bytes_out"]), (&"-".into(), &"ok".into(), &6.into()));
        let answer = host.ask(version, "GET", "/nowhere", &[("x-request-id", "mine")], None).expect("an answer");
        assert_eq!((answer.status, answer.text()), (404, "not found\n"));
        let line = host.access(&answer);
        assert_eq!((&line["outcome"], &line["client_id"]), (&"not_found".into(), &"mine".into()), "{line}");
        assert_eq!(host.post(version, "/nowhere", b"a body").status, 404);
    }
    // Whoever goes away before there was a worker has a line too.
    queued.into_iter().for_each(Client::reset);
    let line = host.json("of who has gone", |line| line["kind"] == "access" && line["outcome"] == "client_gone");
    assert_eq!((&line["status"], &line["handler"], &line["path"]), (&499.into(), &"slow".into(), &"/slow".into()));
}

#[test]
fn guests_that_compute_for_ever_leave_the_others_their_share_of_the_cores() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for path in hostility::COMPUTING.into_iter().chain(["/naps"]) {
        let dir = Scratch::new();
        let host = beside_hello(&dir, "", "does_its_worst", "/*", "deadline = \"1h\"");
        // As many as may run at once. Each has its seat before the next one asks.
        let mut busy: Vec<Client> = (0..2 * cores).map(|_| host.connect()).collect();
        for (number, client) in busy.iter_mut().enumerate() {
            client.ask(path);
            expect_running(&dir, number + 1);
        }
        for _ in 0..3 {
            host.expect("/hello", 200, "ok");
        }
        busy.into_iter().for_each(Client::reset);
    }
}

#[test]
fn a_proxy_says_who_its_client_is_and_the_log_knows_it() {
    let dir = Scratch::new();
    let host = two_handlers(&dir, "proxy_protocol = \"127.0.0.1\"", "");
    let mut client = host.connect();
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x1f\x90\x00\x50");
    client.ask("/hello");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(host.access(&answer)["peer"], "192.0.2.1:8080");
}

#[test]
fn what_clients_may_do_is_configured() {
    let dir = Scratch::new();
    let host = two_handlers(&dir, "max_requests_per_connection = 2\nmax_headers = 10\nmax_header_size = \"8KiB\"", "");
    let mut client = host.connect();
    client.ask("/hello");
    assert_eq!(client.answer().header("connection"), None);
    client.ask("/hello");
    assert_eq!(client.answer().header("connection"), Some("close"));
    for head in ["a: b\r\n".repeat(10), format!("a: {}\r\n", "b".repeat(9000))] {
        let mut client = host.connect();
        client.send(format!("GET /hello HTTP/1.1\r\nhost: test\r\n{head}\r\n"));
        assert_eq!(client.answer().status, 431);
    }
}
