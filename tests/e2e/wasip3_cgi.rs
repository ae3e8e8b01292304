//! CGI programs of WASI 0.3: components that export its `wasi:cli/run`.

use crate::harness::{BOTH, Host, Http, pattern};

const PROGRAM: &str = "wasip3_cgi";

#[test]
fn a_program_prints_its_answer() {
    let host = Host::of(PROGRAM);
    host.stdout_with("CGI program, a component that exports `wasi:cli/run` 0.3.");
    for version in BOTH {
        for path in ["/", "/in-std", "/in-pieces"] {
            let answer = host.get(version, path);
            assert_eq!((answer.status, answer.text()), (200, "Hello World!"), "{path}");
            assert_eq!(answer.header("content-type"), Some("text/plain"));
            assert_eq!(host.access(&answer)["outcome"], "ok");
        }
        let numbers: String = (0..200).map(|n| format!("{n},")).collect();
        assert_eq!(host.get(version, "/in-many-streams").text(), numbers);
        let answer = host.get(version, "/status");
        assert_eq!((answer.status, answer.text(), answer.header("x-two")), (404, "no such thing", Some("1")));
    }
}

#[test]
fn a_program_finds_its_request_in_the_environment() {
    let host =
        Host::with(PROGRAM).flag("--env", "GRANTED=yes").flag("--env", "HTTP_X_TWO=ours").flag("--arg", "-v").start();
    for version in BOTH {
        let headers = [("x-one", "1"), ("x-two", "forged"), ("proxy", "http://evil.example")];
        let answer = host.ask(version, "GET", "/environment?a=b", &headers, None).expect("a whole answer");
        let lines: Vec<_> = answer.text().lines().collect();
        for line in [
            "REQUEST_METHOD=GET",
            "PATH_INFO=/environment",
            "QUERY_STRING=a=b",
            "SERVER_NAME=test",
            "HTTP_X_ONE=1",
            "GRANTED=yes",
            "HTTP_X_TWO=ours",
            "arguments=[\"wasip3_cgi\", \"-v\"]",
        ] {
            assert!(lines.contains(&line), "{version:?} {line} is not in {lines:?}");
        }
        for absent in ["HTTP_PROXY", "forged"] {
            assert!(!answer.text().contains(absent), "{}", answer.text());
        }
    }
}

#[test]
fn what_is_sent_to_a_program_comes_back() {
    let host = Host::of(PROGRAM);
    host.expect_echo();
    for version in BOTH {
        assert_eq!(host.post(version, "/collects", &pattern(1_000_000)).text(), "1000000 bytes, Ok(())");
        assert_eq!(host.get(version, "/collects").text(), "0 bytes, Ok(())");
    }
}

#[test]
fn tasks_print_at_the_same_time() {
    let host = Host::of(PROGRAM);
    for version in BOTH {
        let answer = host.get(version, "/in-two-tasks");
        let count = |byte| answer.body.iter().filter(|found| **found == byte).count();
        assert_eq!((answer.body.len(), count(b'a'), count(b'b')), (2_000_000, 1_000_000, 1_000_000), "{version:?}");
    }
}

#[test]
fn tasks_read_at_the_same_time() {
    let host = Host::of(PROGRAM);
    let mut client = host.connect();
    client.send("POST /counts-in-two-tasks HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    // It goes out when both wait.
    assert_eq!(client.head().status, 200);
    client.send("5\r\nHello\r\n");
    client.send("7\r\n World!\r\n");
    client.send("0\r\n\r\n");
    let mut counts = Vec::new();
    while let Some(chunk) = client.chunk().expect("a whole body") {
        counts.extend(chunk);
    }
    let counts = String::from_utf8(counts).expect("text");
    let counts: Vec<usize> = counts.split_whitespace().map(|count| count.parse().expect("a number")).collect();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (2, 12), "{counts:?}");
}

#[test]
fn a_program_that_ends_well_has_printed_all_of_its_answer() {
    let host = Host::of(PROGRAM);
    for version in BOTH {
        assert_eq!(host.get(version, "/exits").text(), "all of it");
        let answer = host.get(version, "/goes-on");
        assert_eq!(answer.text(), "Hello World!", "it has ended when `run` has returned");
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
}

#[test]
fn a_program_that_does_not_is_told_from_it() {
    let host = Host::with(PROGRAM).flag("--deadline", "200ms").start();
    for (path, outcome) in [("/fails", "exit"), ("/exits-badly", "exit"), ("/too-short", "unfinished")] {
        for version in BOTH {
            // Its head may be out already, and then it is cut.
            if let Ok(answer) = host.ask(version, "GET", path, &[], None) {
                assert_eq!((answer.status, &host.access(&answer)["outcome"]), (500, &outcome.into()), "{path}");
            }
        }
    }
    host.expect("/nothing", 500, "no_answer");
    host.expect("/no-head", 500, "guest_error");
    host.stderr_with("expected fields such as `Content-Type: text/plain`");
    host.expect("/spins", 504, "deadline");
    host.expect_cut("/panics-later", "half of it", "trap");
}

#[test]
fn a_program_that_prints_too_much_is_cut_to_the_length_that_it_has_promised() {
    let host = Host::of(PROGRAM);
    for version in BOTH {
        assert_eq!(host.get(version, "/too-long").text(), "Hello");
    }
}

#[test]
fn what_a_program_complains_about_is_logged() {
    let host = Host::of(PROGRAM);
    let answer = host.get(Http::One, "/complains");
    assert_eq!(host.access(&answer)["outcome"], "no_answer");
    let id = answer.header("x-request-id").expect("every answer has an id");
    let line = host.json("the complaint", |line| line["kind"] == "guest" && line["id"] == id);
    assert_eq!((&line["stream"], &line["text"]), (&"stderr".into(), &"complaint of 0.3".into()));
}

#[test]
fn a_program_is_cut_by_its_limits_and_by_its_client() {
    let host = Host::with(PROGRAM).flag("--stream-deadline", "100ms").start();
    host.expect_cut("/slowly", "first", "deadline");
    let host = Host::of(PROGRAM);
    for path in ["/without-end", "/slowly"] {
        let mut client = host.connect();
        client.ask(path);
        let head = client.head();
        client.reset();
        host.expect_outcome(head.header("x-request-id"), "client_gone");
    }
    let mut client = host.connect();
    let peer = client.local_addr().to_string();
    client.send("POST /collects HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n");
    assert_eq!(client.head().status, 100, "the program has begun to read");
    client.send("half ");
    client.reset();
    let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
    assert_eq!(access["outcome"], "client_gone", "{access}");
}
