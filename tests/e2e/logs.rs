//! The log: one line per request, the guests' lines, and nobody else's.

use serde_json::Value;

use crate::harness::{BOTH, Host, Http, Setup, guest};

/// `run` with the log as a person gets it.
fn as_text(name: &str) -> Setup {
    Host::with(name).no_log()
}

#[test]
fn an_access_line_says_everything_about_its_request() {
    let host = Host::of("echo");
    for version in BOTH {
        let answer = host.ask(version, "PUT", "/a/b?secret", &[], Some(b"12345")).expect("a whole answer");
        let access = host.access(&answer);
        for (key, value) in [
            ("kind", Value::from("access")),
            ("handler", "echo".into()),
            ("method", "PUT".into()),
            ("path", "/a/b".into()),
            ("status", 200.into()),
            ("bytes_in", 5.into()),
            ("bytes_out", 5.into()),
            ("outcome", "ok".into()),
        ] {
            assert_eq!(access[key], value, "{key} of {access}");
        }
        for key in ["wall_us", "cpu_us", "peak_memory"] {
            assert!(access[key].as_u64().is_some_and(|number| number > 0), "{key} of {access}");
        }
        let time = access["time"].as_str().expect("text");
        assert!(time.len() == 24 && time.ends_with('Z') && time.contains('T'), "{time}");
    }
}

#[test]
fn there_is_one_access_line_for_each_request() {
    let mut host = Host::of("hello");
    let mut client = host.connect();
    let mut ids: Vec<_> = (0..50).map(|_| client.get("/").header("x-request-id").expect("an id").to_owned()).collect();
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut logged: Vec<_> = lines
        .filter(|line| line["kind"] == "access")
        .map(|line| line["id"].as_str().expect("text").to_owned())
        .collect();
    ids.sort();
    logged.sort();
    assert_eq!(ids, logged);
}

#[test]
fn the_log_is_text_unless_told_otherwise() {
    for setup in [as_text("hello"), as_text("hello").flag("--access-log", "text")] {
        let host = setup.start();
        let answer = host.get(Http::One, "/x?secret");
        let line = host.stderr_with(&format!("id={}", answer.header("x-request-id").expect("an id")));
        for part in [" access ", " peer=127.0.0.1:", " method=GET ", " path=/x ", " status=200 ", " outcome=ok"] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }
}

#[test]
fn without_an_access_log_guests_and_failures_are_still_logged() {
    let mut host = as_text("trap_before_head").flag("--access-log", "off").start();
    let answer = host.get(Http::One, "/");
    let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
    let guest = host.stderr_with("trapped before the head");
    assert!(guest.contains(&id) && guest.contains("handler=trap_before_head") && guest.contains("stderr"), "{guest}");
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    assert!(log.lines().any(|line| line.contains("trap: ") && line.contains(&id)), "{log}");
    assert!(!log.contains(" access "), "{log}");
}

#[test]
fn quiet_prints_the_address_and_nothing_else() {
    let mut host = as_text("hello").arg("--quiet").start();
    assert_eq!(host.get(Http::One, "/").status, 200);
    host.signal(rustix::process::Signal::TERM);
    let ended = host.ended();
    assert_eq!(ended.stdout, format!("listening on http://{}\n", host.addr()));
    assert_eq!(ended.stderr, "");
}

#[test]
fn what_guests_print_has_their_name_and_request() {
    let host = Host::of("sleeps_after_answer");
    for version in BOTH {
        let answer = host.get(version, "/?ms=1");
        let id = answer.header("x-request-id").expect("every answer has an id");
        let line = host.json("the guest's line", |line| line["kind"] == "guest" && line["id"] == id);
        assert_eq!(line["handler"], "sleeps_after_answer");
        assert_eq!((&line["stream"], &line["text"]), (&"stdout".into(), &"answered".into()));
    }
}

#[test]
fn a_guest_without_files_prints_and_panics_like_any_other() {
    let host = Host::of("without_files");
    for version in BOTH {
        let answer = host.get(version, "/print");
        assert_eq!(answer.text(), "Ok(())");
        for (stream, text) in
            [("stdout", "to standard output"), ("stderr", "to standard error"), ("stdout", "longlong")]
        {
            let id = answer.header("x-request-id").expect("every answer has an id");
            let is_it =
                |line: &Value| line["stream"] == stream && line["text"].as_str().is_some_and(|t| t.starts_with(text));
            host.json(text, |line| line["id"] == id && is_it(line));
        }
        let panicked = host.get(version, "/panic");
        assert_eq!(panicked.status, 500);
        let id = panicked.header("x-request-id").expect("every answer has an id");
        host.json("the message", |line| line["id"] == id && line["text"] == "out of cheese");
    }
}

#[test]
fn a_guest_cannot_forge_a_line_of_json() {
    let mut host = Host::of("forges_log_lines");
    let answer = host.get(Http::One, "/");
    assert_eq!(answer.text(), "forged\n");
    let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    let mut texts = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line["kind"] == "guest" {
            assert_eq!(line["id"], id.as_str());
            texts.push(line["text"].as_str().expect("text").to_owned());
        }
    }
    for expected in ["plain", "one", "2026-01-01T00:00:00Z forged access line status=200", "no newline at the end"] {
        assert!(texts.iter().any(|text| text == expected), "{expected:?} is not in {texts:?}");
    }
}

#[test]
fn a_guest_cannot_forge_a_line_of_text_or_command_a_terminal() {
    let mut host = as_text("forges_log_lines").start();
    let answer = host.get(Http::One, "/");
    let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    for line in log.lines() {
        let forbidden = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        assert!(!line.contains(forbidden), "{line:?}");
        if line.contains("forged access line") {
            assert!(line.contains(" guest ") && line.contains(&id), "{line:?}");
        }
        let time = line.split(' ').next().expect("a word");
        assert!(time.len() == 24 && time.ends_with('Z'), "every line begins with the host's own time: {line:?}");
    }
    assert_eq!(log.matches(" access id=").count(), 1);
    assert!(log.lines().all(|line| line.len() < 20_000), "a line has a bound");
}

#[test]
fn a_client_cannot_forge_a_line() {
    let mut host = as_text("hello").start();
    let path = "/x%0A2026-01-01T00:00:00.000Z%20access?a=%0d%0a";
    let headers = [("x-request-id", "id outcome=forged")];
    let answer = host.ask(Http::One, "GET", path, &headers, None).expect("an answer");
    assert_eq!(answer.status, 200);
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    assert_eq!(log.matches(" access id=").count(), 1, "{log}");
    assert!(!log.contains("forged"), "{log}");
}

#[test]
fn a_flood_of_lines_holds_up_nobody_and_does_not_fill_the_log() {
    let mut host = Host::of("stdout_flood");
    let answer = host.get(Http::One, "/?lines=100000");
    assert_eq!(answer.text(), "flooded\n");
    assert_eq!(host.access(&answer)["outcome"], "ok");
    let id = answer.header("x-request-id").expect("every answer has an id");
    let told = host.stderr_with("lines dropped after the 1 MiB that a request may print");
    assert!(told.contains(id), "{told}");
    host.signal(rustix::process::Signal::TERM);
    let log = host.ended().stderr;
    assert!(log.matches("of a flood").count() < 100_000 / 4, "{}", log.len());
    assert!(log.contains("line 1 of a flood"));
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    // The reader of the standard error is a process that never reads.
    let host = Setup::run(guest("stdout_flood"))
        .through_shell(r#"fifo=$(mktemp -u); mkfifo "$fifo"; exec 3<>"$fifo"; rm "$fifo"; exec "$@" 2>&3"#)
        .start();
    for _ in 0..3 {
        assert_eq!(host.get(Http::One, "/?lines=100000").text(), "flooded\n");
    }
}
