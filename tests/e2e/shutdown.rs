//! SIGINT and SIGTERM: stop accepting, let requests finish, tell connections before they are closed, exit 0. A second one exits at once.

use std::{net::TcpStream, path::Path, sync::mpsc, thread};

use rustix::process::{Signal, test_kill_process};

use crate::harness::{BOTH, Client, HeldBuild, Host, PATIENCE, Scratch, Setup, guest};

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
    // The listener is closed soon after that line.
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
fn a_kept_alive_connection_is_answered_while_a_host_drains_and_told_that_it_ends() {
    let mut host = Host::of("sse");
    let mut reused = host.connect();
    assert_eq!(reused.get("/?ms=1&count=1").status, 200);
    let mut fresh = host.connect();
    let mut running = host.connect();
    running.ask("/?ms=100&count=30");
    assert_eq!(running.head().status, 200);
    host.signal(Signal::TERM);
    host.stderr_with("finishing what runs");
    for client in [&mut reused, &mut fresh] {
        // One or two may be answered before the server knows what that line says.
        while client.get("/?ms=1&count=1").header("connection") != Some("close") {}
        assert_eq!(client.until_closed(), b"");
    }
    while running.chunk().expect("a whole body").is_some() {}
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("were cut"), "{}", ended.stderr);
}

#[test]
fn under_load_no_request_fails_on_a_connection_that_was_not_told_to_close() {
    let mut host = Host::of("hello");
    let (busy, begun) = mpsc::channel();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, busy) = (host.connect(), busy.clone());
            thread::spawn(move || {
                for n in 0.. {
                    let answer = client.get("/");
                    assert_eq!((answer.status, answer.text()), (200, "Hello World!"));
                    if answer.header("connection") == Some("close") {
                        assert_eq!(client.until_closed(), b"");
                        return;
                    }
                    if n == 10 {
                        busy.send(()).expect("the test listens");
                    }
                }
            })
        })
        .collect();
    for _ in &clients {
        begun.recv_timeout(PATIENCE).expect("it is answered");
    }
    host.signal(Signal::TERM);
    for client in clients {
        client.join().expect("no request fails");
    }
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn who_asks_whether_a_host_is_ready_hears_that_it_stops() {
    let scratch = Scratch::short();
    let module = guest("sse");
    let text = format!(
        "[server]\nlisten = '127.0.0.1:0'\nhealth = '/healthz'\n[[handler]]\nname = 'sse'\nmodule = '{}'\n",
        module.display()
    );
    let control = scratch.join("control");
    let file = scratch.file("astra.toml", text);
    let mut host = Setup::run(file).no_listen().flag("--control", &control).arg("--no-state").start();
    let operators = |path: &str| Client::connect_unix(&control).get(path).status;
    for version in BOTH {
        let answer = host.get(version, "/healthz");
        assert_eq!((answer.status, answer.text()), (200, "ready\n"));
        assert_eq!(host.access(&answer)["outcome"], "ok");
        assert_eq!(host.ask(version, "HEAD", "/healthz", &[], None).expect("an answer").status, 200);
        let guests = host.post(version, "/healthz?ms=1&count=1", b"");
        assert_eq!(guests.header("content-type"), Some("text/event-stream"));
    }
    assert_eq!((operators("/healthz"), operators("/readyz")), (200, 200));

    let mut spreader = host.connect();
    assert_eq!(spreader.get("/healthz").status, 200);
    let mut running = host.connect();
    running.ask("/?ms=100&count=30");
    assert_eq!(running.head().status, 200);
    host.signal(Signal::TERM);
    host.stderr_with("finishing what runs");
    let last = loop {
        let answer = spreader.get("/healthz");
        if answer.header("connection") == Some("close") {
            break answer;
        }
    };
    assert_eq!((last.status, last.text()), (503, "stopping\n"));
    assert_eq!((operators("/healthz"), operators("/readyz")), (200, 503));
    drop(running);
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
    let told = "requests were cut, 1 of them in their guests: they took longer than `drain` (300ms)";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
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
    assert_eq!(ended.stderr.matches("\"outcome\":\"drained\"").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_host_that_is_told_to_stop_while_it_starts_ends_and_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let scratch = Scratch::short();
        let build = HeldBuild::new(&scratch);
        let (control, state) = (scratch.join("control"), scratch.join("state"));
        let setup = |setup: Setup| setup.flag("--control", &control).flag("--state", &state);
        let mut host = build.holds(setup(Setup::run(&build.broken))).begin();
        let pid = build.begun(&host);
        host.signal(signal);
        let ended = host.ended();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
        assert!(ended.stderr.contains("stopped: the build of `"), "{ended:?}");
        assert!(test_kill_process(pid).is_err(), "the build has ended, too");
        assert!(!control.exists() && !scratch.join("control.lock").exists());
        setup(Host::with("hello")).start();
    }
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

/// A host with that control socket, and a client that has the head of an answer which takes half a second.
fn in_the_middle_of_an_answer(control: &Path) -> (Host, Client) {
    let host = Host::with("sse").flag("--control", control).start();
    let mut client = host.connect();
    client.ask("/?ms=10&count=50");
    assert_eq!(client.head().status, 200);
    (host, client)
}

#[test]
fn an_operators_second_stop_waits_for_the_same_end() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let (mut host, mut client) = in_the_middle_of_an_answer(&control);
    let stop = || Setup::bare().arg("stop").flag("--control", &control);
    let first = stop().begin();
    host.stderr_with("finishing what runs");
    let second = stop().begin();
    while client.chunk().expect("a whole body").is_some() {}
    drop(client);
    for mut stopped in [first, second] {
        let ended = stopped.ended();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "stopped\n"), "{ended:?}");
    }
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn signals_that_mean_something_to_others_are_told_what_to_use_instead() {
    let mut host = Host::of("hello");
    for (signal, told) in [
        (Signal::USR1, "SIGUSR1 does nothing: the log is the standard error"),
        (Signal::USR2, "SIGUSR2 does nothing: `astra-host upgrade`"),
    ] {
        host.signal(signal);
        host.stderr_with(told);
        assert_eq!(host.connect().get("/").text(), "Hello World!");
    }
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code, Some(0));
}

/// systemd does both: its `ExecStop`, and then a signal, whether that has helped or not.
#[test]
fn a_signal_after_an_operators_stop_cuts_nothing() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let (mut host, mut client) = in_the_middle_of_an_answer(&control);
    let stop = Setup::bare().arg("stop").arg("--no-wait").flag("--control", &control).end();
    assert_eq!(stop.code, Some(0), "{stop:?}");
    host.stderr_with("finishing what runs");
    host.signal(Signal::TERM);
    while client.chunk().expect("a whole body").is_some() {}
    drop(client);
    assert_eq!(host.ended().code, Some(0));
}
