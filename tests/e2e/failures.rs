//! Guests that fail: what the client gets, and what the access log calls it.

use std::io::ErrorKind;

use crate::harness::{BOTH, Host};

#[test]
fn a_trap_before_the_head_is_500() {
    let host = Host::of("trap_before_head");
    host.expect("/", 500, "trap");
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!(answer.text(), "the handler failed\n", "a stranger learns nothing about the guest");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
}

#[test]
fn a_trap_is_logged_with_its_reason_and_the_functions_it_went_through() {
    let host = Host::of("trap_before_head");
    let answer = host.get(crate::harness::Http::One, "/");
    let id = answer.header("x-request-id").expect("every answer has an id").to_owned();
    let record = host.json("the failure", |line| {
        line["kind"] == "host" && line["message"].as_str().is_some_and(|message| message.contains(&id))
    });
    let message = record["message"].as_str().expect("text");
    assert!(message.contains("trap: ") && message.contains("trap_before_head"), "{message}");
    assert!(message.contains(" in `") && !message.contains("panic"), "the way a panic goes says nothing: {message}");
    let said = host.json("what the guest said", |line| {
        line["kind"] == "guest" && line["text"].as_str().is_some_and(|text| text.contains("trapped before the head"))
    });
    assert_eq!((&said["stream"], &said["id"]), (&"stderr".into(), &id.into()));
}

#[test]
fn a_connection_survives_its_guests() {
    let host = Host::of("trap_before_head");
    let mut client = host.connect();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 500);
    }
}

#[test]
fn a_guest_that_never_answers_is_500() {
    Host::of("never_answers").expect("/", 500, "no_answer");
}

#[test]
fn a_trap_after_the_head_cuts_the_response() {
    Host::of("trap_after_head").expect_cut("/", "first", "trap");
}

#[test]
fn a_trap_in_the_middle_of_a_promised_length_cuts_the_response() {
    let host = Host::of("trap_after_head");
    let mut client = host.connect();
    client.ask("/length");
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    assert_eq!(client.until_closed(), b"first");

    let mut connection = host.http2();
    let mut stream = connection.open("GET", "/length", &[], true);
    assert_eq!(stream.head().expect("a head").status, 200);
    assert_eq!(stream.chunk().expect("data").expect("not the end"), "first");
    assert!(stream.chunk().expect_err("half a body").is_reset());
}

#[test]
fn a_trap_resets_the_connection_where_its_end_is_that_of_the_body() {
    let host = Host::of("trap_after_head");
    let mut client = host.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
    let end = client.rest().expect_err("a FIN is for bodies that are complete (RFC 9112 section 6.3)");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    host.expect_outcome(head.header("x-request-id"), "trap");

    let host = Host::of("sse");
    let mut client = host.connect();
    client.send("GET /?count=1 HTTP/1.0\r\n\r\n");
    assert!(client.answer().text().ends_with("\n\n"), "a body that is complete ends in order");
}

#[test]
fn a_trap_right_after_the_head_is_never_a_complete_response() {
    let host = Host::of("trap_after_head");
    for version in BOTH {
        if let Ok(answer) = host.ask(version, "GET", "/at-once", &[], None) {
            assert_eq!(answer.status, 500);
            assert_eq!(host.access(&answer)["outcome"], "trap");
        }
    }
}

#[test]
fn a_body_that_the_guest_drops_unfinished_is_cut() {
    Host::of("drops_body_unfinished").expect_cut("/", "first", "unfinished");
}

#[test]
fn a_body_that_the_guest_drops_at_once_is_never_a_complete_response() {
    let host = Host::of("drops_body_unfinished");
    for version in BOTH {
        if let Ok(answer) = host.ask(version, "GET", "/at-once", &[], None) {
            assert_eq!(answer.status, 500);
            assert_eq!(host.access(&answer)["outcome"], "unfinished");
        }
    }
}

#[test]
fn a_body_longer_than_its_content_length_is_cut_to_it() {
    let host = Host::of("lies_about_length");
    for version in BOTH {
        let answer = host.get(version, "/long");
        assert_eq!((answer.status, answer.text()), (200, "0123456789"));
        assert_eq!(answer.header("content-length"), Some("10"));
    }
    let mut client = host.connect();
    assert_eq!(client.get("/long").text(), "0123456789");
    assert_eq!(client.get("/long").text(), "0123456789", "nothing is left over on the connection");
}

#[test]
fn a_body_shorter_than_its_content_length_is_never_a_complete_response() {
    let host = Host::of("lies_about_length");
    for path in ["/short", "/none"] {
        for version in BOTH {
            if let Ok(answer) = host.ask(version, "GET", path, &[], None) {
                assert_eq!(answer.status, 500, "{version:?} {path}");
                assert_eq!(host.access(&answer)["outcome"], "unfinished");
            }
        }
    }
}

#[test]
fn a_stack_that_overflows_is_500() {
    Host::of("overflows_stack").expect("/", 500, "trap");
}

#[test]
fn outgoing_requests_are_refused_and_the_guest_is_told() {
    let host = Host::of("calls_out");
    for version in BOTH {
        let answer = host.get(version, "/?http://127.0.0.1:1/");
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(answer.text().contains("does not grant"), "{}", answer.text());
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
}

#[test]
fn sockets_and_names_are_refused_and_the_guest_is_told() {
    let tcp = Host::of("connects_tcp");
    let names = Host::of("looks_up_name");
    for version in BOTH {
        // The host itself listens there: nothing but the missing grant can be in the way.
        let answer = tcp.get(version, &format!("/?{}", tcp.addr()));
        assert!(answer.text().starts_with("error: "), "{}", answer.text());
        let answer = names.get(version, "/?localhost");
        assert!(answer.text().starts_with("error: "), "{}", answer.text());
    }
}
