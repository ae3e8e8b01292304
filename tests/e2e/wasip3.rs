//! Guests of WASI 0.3: what is served of 0.2 is served of them, in the same way.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{BOTH, Host, Http, Scratch, Setup, guest, waiting};

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
    // A guest that computes through a tick is not waited for.
    let is_complete = |_| host.get(Http::One, "/").header("content-length") == Some("12");
    assert!((0..20).any(is_complete), "it was complete before it went out");
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
fn a_guest_of_the_last_draft_of_0_3_is_one_too() {
    let host = Host::of("wasip3_draft");
    host.stdout_with("component, WASI HTTP 0.3.0-rc-2026-03-15");
    for version in BOTH {
        assert_eq!(host.post(version, "/", b"back").text(), "back", "{version:?}");
    }
}

#[test]
fn failures_are_told_as_those_of_0_2() {
    let host = Host::with(GUEST).flag("--deadline", "200ms").start();
    host.expect("/traps", 500, "trap");
    host.expect("/refuses", 504, "gateway_timeout");
    host.expect("/sleeps", 504, "deadline");
    host.expect("/spins", 504, "deadline");
    host.expect("/yields", 504, "deadline");
    host.expect("/status?100", 500, "guest_error");
    host.expect("/exits?3", 500, "exit");
    host.expect("/exits?0", 500, "exit");
}

#[test]
fn what_fails_after_the_head_cuts_the_answer() {
    let host = Host::with(GUEST).flag("--cpu", "200ms").start();
    host.expect_cut("/traps-later", "Hello World!", "trap");
    host.expect_cut("/fails-later", "Hello World!", "unfinished");
    host.expect_cut("/fails-and-goes-on", "Hello World!", "unfinished");
    host.expect_cut("/spins-later", "Hello World!", "cpu");
}

#[test]
fn a_guest_that_uses_up_what_it_may_have_is_refused_more() {
    let host = Host::with(GUEST).flag("--cpu", "200ms").start();
    host.expect("/spins", 503, "cpu");
    host.expect("/fields/hoards", 500, "trap");
    host.expect("/starts-tasks-without-end", 500, "trap");
    host.expect("/", 200, "ok");
}

#[test]
fn an_operator_ends_a_guest_whatever_it_does() {
    for (path, waits_for) in [("/sleeps", "io"), ("/naps-and-sleeps", "io"), ("/spins", "running")] {
        for version in BOTH {
            let scratch = Scratch::short();
            let control = scratch.join("control");
            let host = Host::with(GUEST).flag("--control", &control).start();
            let (mut client, mut connection) = (host.connect(), host.http2());
            let mut stream = None;
            match version {
                Http::One => client.ask(path),
                Http::Two => stream = Some(connection.open("GET", path, &[], true)),
            }
            let id = waiting(&control, waits_for);
            let killed = Setup::bare().arg("kill").arg(id).flag("--control", &control).end();
            assert_eq!(killed.code, Some(0), "{killed:?}");
            let answer = match stream {
                None => client.answer(),
                Some(stream) => stream.answer().expect("an answer"),
            };
            assert_eq!((answer.status, &host.access(&answer)["outcome"]), (503, &"killed".into()));
        }
    }
}

#[test]
fn a_swap_cuts_those_that_take_longer_than_drain() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    let host = Host::with(GUEST).flag("--control", &control).arg("--no-state").flag("--drain", "50ms").start();
    let mut sleeper = host.connect();
    sleeper.ask("/sleeps");
    waiting(&control, "io");
    let mut stream = host.connect();
    stream.ask("/slowly");
    let head = stream.head();
    assert_eq!(head.status, 200);
    let swap = Setup::bare().arg("swap").arg(GUEST).arg(guest("hello")).arg("--json").flag("--control", &control).end();
    let receipt: Value = serde_json::from_str(&swap.stdout).expect("it is JSON");
    assert_eq!((&receipt["drained"]["finished"], &receipt["drained"]["cut"]), (&0.into(), &2.into()), "{receipt}");
    let answer = sleeper.answer();
    assert_eq!((answer.status, &host.access(&answer)["outcome"]), (504, &"drained".into()));
    assert!(!String::from_utf8_lossy(&stream.until_closed()).ends_with("0\r\n\r\n"), "it does not look complete");
    host.expect_outcome(head.header("x-request-id"), "drained");
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
}

#[test]
fn a_guest_may_go_on_after_its_answer_up_to_its_deadline() {
    let host = Host::of(GUEST);
    for path in ["/goes-on-afterwards?100", "/exits-afterwards?100"] {
        for version in BOTH {
            let answer = host.get(version, path);
            assert_eq!(answer.text(), "Hello World!");
            host.printed(
                answer.header("x-request-id").expect("every answer has an id"),
                "has gone on after the answer",
            );
            assert_eq!(host.access(&answer)["outcome"], "ok", "{path}");
        }
    }
    let host = Host::with(GUEST).flag("--deadline", "300ms").start();
    for version in BOTH {
        let answer = host.get(version, "/goes-on-afterwards?3600000");
        assert_eq!((answer.status, answer.text()), (200, "Hello World!"), "the answer is complete before that");
        assert_eq!(host.access(&answer)["outcome"], "deadline");
    }
}

#[test]
fn a_guest_may_go_on_without_its_client() {
    let host = Host::of(GUEST);
    // The other one waits inside of its event loop.
    for path in ["/goes-on-afterwards?300", "/naps-afterwards?300"] {
        let id = host.left_with_the_head(path, |id| host.printed(id, "it went Ok(())"));
        host.printed(&id, "has gone on after the answer");
        host.expect_outcome(Some(&id), "client_gone");
    }
}

#[test]
fn a_guest_that_computes_without_its_client_is_cut_on_a_host_with_nothing_else_to_do() {
    let host = Host::of(GUEST);
    let id = host.left_with_the_head("/spins-afterwards?300", |id| host.printed(id, "it went Ok(())"));
    host.expect_outcome(Some(&id), "client_gone");
}

#[test]
fn a_host_that_ends_does_not_wait_for_guests_that_go_on() {
    let mut host = Host::with(GUEST).flag("--drain", "300ms").flag("--deadline", "1h").start();
    for version in BOTH {
        assert_eq!(host.get(version, "/goes-on-afterwards?3600000").text(), "Hello World!");
    }
    host.signal(Signal::TERM);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr.matches("\"outcome\":\"drained\"").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_guest_is_cut_by_its_limits_and_by_its_client() {
    let host = Host::with(GUEST).flag("--stream-deadline", "100ms").start();
    for path in ["/slowly", "/spins-later", "/forgets-its-end"] {
        host.expect_cut(path, "Hello World!", "deadline");
    }
    let host = Host::of(GUEST);
    for path in ["/without-end", "/slowly", "/spins-later", "/forgets-its-end"] {
        let mut client = host.connect();
        client.ask(path);
        let head = client.head();
        client.reset();
        host.expect_outcome(head.header("x-request-id"), "client_gone");
        let mut connection = host.http2();
        let mut stream = connection.open("GET", path, &[], true);
        let head = stream.head().expect("a head");
        stream.cancel();
        assert_eq!(host.access(&head)["outcome"], "client_gone", "{path}");
    }
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
