//! What `wasi:http`, `wasi:io` and `wasi:cli` 0.2 say about each behaviour that guests may have: one small guest for each, whose header says
//! what has to come of it. WASI's and wasmtime's own suites name most of them; behaviours of other files here are not repeated. Guests that
//! ask others are in `conformance_outgoing.rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{
    BOTH, Host, field,
    origin::{Origin, text},
};

#[test]
fn an_error_code_that_a_guest_answers_with_becomes_its_status() {
    let host = Host::of("answers_with_an_error_code");
    for (path, status, outcome) in [
        ("/dns", 502, "bad_gateway"),
        ("/refused", 502, "bad_gateway"),
        ("/first-byte", 504, "gateway_timeout"),
        ("/too-large", 413, "body_too_large"),
        ("/internal", 500, "guest_error"),
    ] {
        host.expect(path, status, outcome);
        for version in BOTH {
            let answer = host.get(version, path);
            assert!(!answer.text().contains("secret"), "a stranger learns nothing: {}", answer.text());
        }
    }
}

#[test]
fn what_can_have_no_content_has_none() {
    let host = Host::of("answers_without_content");
    let mut client = host.connect();
    for status in [204, 205, 304, 200, 205, 204] {
        // Content where none may be would be taken for the next answer.
        let answer = client.get(&format!("/?{status}"));
        let length = answer.header("content-length");
        assert_eq!((answer.status, answer.text()), (status, if status == 200 { "body" } else { "" }));
        match status {
            204 => assert_eq!((length, answer.header("transfer-encoding")), (None, None), "RFC 9110 section 8.6"),
            205 => assert_eq!(length, Some("0"), "a client waits for the end of it (RFC 9110 section 15.3.6)"),
            304 => assert!(matches!(length, None | Some("4")), "that of the 200: {length:?}"),
            _ => assert_eq!(length, Some("4")),
        }
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
    let mut connection = host.http2();
    for status in [204, 205, 304] {
        let answer = connection.get(&format!("/?{status}"));
        assert_eq!((answer.status, answer.text()), (status, ""));
        assert!(status == 304 || matches!(answer.header("content-length"), None | Some("0")), "{:?}", answer.headers);
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
    for version in BOTH {
        let answer = host.ask(version, "HEAD", "/?200", &[], None).expect("a whole answer");
        assert_eq!((answer.header("content-length"), answer.text()), (Some("4"), ""), "{version:?}");
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
}

#[test]
fn a_status_that_is_interim_or_beyond_599_is_no_answer_and_what_is_no_status_cannot_be_set() {
    let host = Host::of("answers_without_content");
    for status in [100, 101, 103, 199, 600, 999] {
        host.expect(&format!("/?{status}"), 500, "guest_error");
    }
    for none in [0, 99, 1000] {
        host.expect_lines(&format!("/?{none}"), &["refused"]);
    }
}

#[test]
fn an_answer_may_be_made_in_any_order_and_is_whole_only_if_it_was_finished() {
    let host = Host::of("orders_its_answer_oddly");
    for (path, body) in [("/finished-before-set", "finished"), ("/never-written", ""), ("/no-body", "")] {
        host.expect(path, 200, "ok");
        for version in BOTH {
            assert_eq!(host.get(version, path).text(), body, "{version:?} {path}");
        }
    }
    host.expect("/dropped-before-set", 500, "unfinished");
    host.expect("/never-set", 500, "no_answer");
}

#[test]
fn a_guest_that_exits_has_ended_wherever_it_was() {
    let host = Host::of("exits");
    host.expect("/before", 500, "exit");
    host.expect("/before?1", 500, "exit");
    host.expect_cut("/within", "first", "exit");
    host.expect("/after", 200, "ok");
    host.expect("/after?1", 200, "exit");
    for version in BOTH {
        assert_eq!(host.get(version, "/after?1").text(), "whole\n", "it had answered");
    }
}

#[test]
fn a_parent_that_is_dropped_before_its_child_traps() {
    let host = Host::of("drops_parents_first");
    for path in ["/drop-outgoing", "/finish-outgoing", "/drop-incoming", "/finish-incoming", "/drop-stream"] {
        host.expect(path, 500, "trap");
    }
    host.expect("/in-order", 200, "ok");
}

#[test]
fn a_poll_of_nothing_traps() {
    Host::of("polls_nothing").expect("/", 500, "trap");
}

#[test]
fn one_thing_can_be_polled_twice_at_once_and_again_and_again() {
    Host::of("polls_one_thing_twice").expect_lines("/", &["ready: [0, 1, 2, 3]", "again: true", "zero: true"]);
}

#[test]
fn a_blocking_write_takes_4096_bytes_and_traps_at_more() {
    let host = Host::of("writes_too_much_at_once");
    host.expect_cut("/", &"x".repeat(4096), "trap");
    host.expect_cut("/zeroes", &"\0".repeat(4096), "trap");
}

#[test]
fn the_trailers_come_to_a_guest_that_does_not_read_the_body() {
    let host = Host::of("skips_to_the_trailers");
    let body = vec![b'x'; 1 << 20];
    for path in ["/", "/some"] {
        for version in BOTH {
            assert_eq!(host.post(version, path, &body).text(), "none\n", "{version:?} {path}");
        }
        let mut client = host.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n{:x}\r\n",
            body.len()
        ));
        client.send(&body);
        client.send("\r\n0\r\nx-sum: 1\r\n\r\n");
        assert_eq!(client.answer().text(), "x-sum: 1\n", "{path}");

        let mut connection = host.http2();
        let mut stream = connection.open("POST", path, &[], false);
        stream.send(&body, false).expect("the host reads");
        stream.send_trailers(&[("x-sum", "1")]);
        assert_eq!(stream.answer().expect("a whole answer").text(), "x-sum: 1\n", "{path}");
    }
    let mut client = host.connect();
    // The guest is there before the body, since it is the guest that asks for it.
    let expects = "POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{expects}nonsense\r\n"));
    host.json("that the trailers of what breaks off are an error", |line| {
        line["kind"] == "guest" && line["text"] == "the trailers: ErrorCode::HttpProtocolError"
    });
}

#[test]
fn the_rules_for_headers_are_kept() {
    let origin = Origin::http(|_| text("four"));
    Host::with("breaks_header_rules").flag("--outbound", "http://127.0.0.1:*").start().expect_lines(
        &format!("/?http://{}/", origin.address),
        &[
            "name with a space: HeaderError::InvalidSyntax",
            "empty name: HeaderError::InvalidSyntax",
            "value with a line feed: HeaderError::InvalidSyntax",
            "value with a carriage return: HeaderError::InvalidSyntax",
            "value with a zero: HeaderError::InvalidSyntax",
            "value that is not UTF-8: accepted",
            "deletion of a malformed name: HeaderError::InvalidSyntax",
            "Connection: HeaderError::Forbidden",
            "keep-alive: HeaderError::Forbidden",
            "Host: HeaderError::Forbidden",
            "transfer-encoding: HeaderError::Forbidden",
            "upgrade: HeaderError::Forbidden",
            "proxy-connection: HeaderError::Forbidden",
            "proxy-authorization: HeaderError::Forbidden",
            "http2-settings: HeaderError::Forbidden",
            "te: HeaderError::Forbidden",
            "length that is no number: HeaderError::InvalidSyntax",
            "length: accepted",
            "second length: HeaderError::InvalidSyntax",
            "list with a malformed name: HeaderError::InvalidSyntax",
            "list with a malformed value: HeaderError::InvalidSyntax",
            "list with a forbidden name: HeaderError::Forbidden",
            "list with two lengths: HeaderError::InvalidSyntax",
            "set in an outgoing request: HeaderError::Immutable",
            "append to an outgoing request: HeaderError::Immutable",
            "delete from an outgoing request: HeaderError::Immutable",
            "append to an outgoing response: HeaderError::Immutable",
            "append to the incoming request: HeaderError::Immutable",
            "append to a clone of it: accepted",
            "delete from an incoming response: HeaderError::Immutable",
            "there: [true, false, false, false, false, true]",
        ],
    );
}

#[test]
fn fields_are_read_back_as_they_were_written() {
    Host::of("reads_back_its_fields").expect_lines(
        "/",
        &[
            r#"from a list: ["1", "3"] 3"#,
            r#"in another case: ["1", "3"] true"#,
            r#"appended: ["1", "3", "4"]"#,
            r#"empty: [""] true"#,
            "absent: [] false",
            "malformed: [] false",
            r#"set in a clone: ["5", "6"] and not here: ["1", "3", "4"]"#,
            "deleted: [] false",
            r#"all of the clone: ["x-a", "x-a", "x-b", "x-empty"]"#,
        ],
    );
}

#[test]
fn one_head_does_not_grow_without_end() {
    let host = Host::of("appends_without_end");
    host.expect("/names", 500, "trap");
    host.expect("/values", 500, "trap");
}

#[test]
fn invalid_parts_of_a_request_are_refused_when_they_are_set() {
    Host::of("sets_invalid_request_parts").expect_lines(
        "/",
        &[
            "at first: Method::Get None None None",
            "valid method: accepted",
            "method with a line feed: refused",
            "method with a space: refused",
            "empty method: refused",
            "valid scheme: accepted",
            "scheme with a space: refused",
            "scheme with a line feed: refused",
            "valid authority without a port: accepted",
            "valid authority: accepted",
            "authority with a space: refused",
            "authority with a line feed: refused",
            "valid path: accepted",
            "path with a line feed: refused",
            "path with a space: refused",
            "path without a slash: refused",
            "path of 70,000 bytes: refused",
            r#"at last: Method::Other("BREW") Some(Scheme::Other("ftp")) Some("[::1]:80") Some("/?a=b")"#,
        ],
    );
}

#[test]
fn a_guest_has_clocks_and_random_numbers_and_nothing_of_the_hosts() {
    let host = Host::of("asks_the_system");
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    let mut seeds = Vec::new();
    for version in BOTH {
        let before = seconds();
        let answer = host.get(version, "/");
        let after = seconds();
        assert_eq!(answer.status, 200);
        let pairs = answer.text().lines().map(|line| line.split_once(": ").expect("a pair"));
        let told: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, value) in [
            ("monotonic", "true"),
            ("resolution", "true"),
            ("random", "true"),
            ("insecure", "true"),
            ("arguments", "[]"),
            ("environment", "[]"),
            ("directory", "None"),
            ("preopens", "0"),
            ("input", "Ok(0)"),
            ("input again", "true"),
            ("terminal", "false"),
        ] {
            assert_eq!(field(&told, name), Some(value), "{name}");
        }
        let wall = field(&told, "wall").and_then(|wall| wall.strip_suffix(" true")).expect("nanoseconds in range");
        assert!((before..=after).contains(&wall.parse().expect("a number")), "{before} {wall} {after}");
        seeds.push(field(&told, "seed").expect("a seed").to_owned());
        let id = answer.header("x-request-id").expect("every answer has an id");
        for (stream, said) in [("stdout", "to the output"), ("stderr", "to the errors")] {
            host.json(said, |line| line["id"] == id && line["stream"] == stream && line["text"] == said);
        }
    }
    assert_ne!(seeds[0], seeds[1]);
}
