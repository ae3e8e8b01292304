//! Bodies and trailers of guests of WASI 0.3: they stream both ways, and what is not whole never looks whole.

use crate::harness::{BOTH, Host, Http};

const GUEST: &str = "wasip3_guest";

#[test]
fn what_is_sent_comes_back() {
    Host::of(GUEST).expect_echo();
}

#[test]
fn an_answer_that_has_its_promised_length_is_whole_whatever_comes_then() {
    let host = Host::of(GUEST);
    for version in BOTH {
        for (path, text, outcome) in [("/is-whole-then-traps", "Hello World!", "trap"), ("/too-long", "Hello", "ok")] {
            let answer = host.get(version, path);
            assert_eq!((answer.status, answer.text()), (200, text));
            assert_eq!(host.access(&answer)["outcome"], outcome);
        }
    }
}

#[test]
fn an_answer_that_is_not_what_it_promises_is_never_whole() {
    let host = Host::of(GUEST);
    for path in ["/too-short", "/fails-at-once", "/announces?200", "/announces-an-empty-one?200"] {
        for version in BOTH {
            // Its head may be out already, and then it is cut.
            if let Ok(answer) = host.ask(version, "GET", path, &[], None) {
                assert_eq!((answer.status, &host.access(&answer)["outcome"]), (500, &"unfinished".into()), "{path}");
            }
        }
    }
}

#[test]
fn a_guest_is_told_how_its_answer_went() {
    let host = Host::of(GUEST);
    let wrong_size = "it went Err(ErrorCode::HttpResponseBodySize(Some(12)))";
    for (path, how) in
        [("/?tells", "it went Ok(())"), ("/too-short?tells", wrong_size), ("/too-long?tells", wrong_size)]
    {
        for version in BOTH {
            // One that is cut takes its guest with it.
            if let Ok(answer) = host.ask(version, "GET", path, &[], None) {
                let id = answer.header("x-request-id").expect("every answer has an id");
                let line = host.json("how it went", |line| line["kind"] == "guest" && line["id"] == id);
                assert_eq!(line["text"], how, "{path}");
            }
        }
    }
}

#[test]
fn trailers_go_both_ways() {
    let host = Host::of(GUEST);
    let mut client = host.connect();
    client.send(
        "POST /collects HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\ntrailer: x-sent\r\n\r\n\
         4\r\nbody\r\n0\r\nx-sent: by the client\r\n\r\n",
    );
    assert_eq!(client.answer().text(), r#"4 bytes, [("x-sent", "by the client")]"#);
    let checksum = [("x-checksum".to_owned(), "abc".to_owned())];
    for version in BOTH {
        let answer = host.ask(version, "GET", "/trailers", &[("te", "trailers")], None).expect("a whole answer");
        assert_eq!((answer.text(), &answer.trailers[..]), ("Hello World!", &checksum[..]), "{version:?}");
    }
    let unasked = host.get(Http::One, "/trailers");
    assert_eq!((unasked.text(), unasked.trailers.len()), ("Hello World!", 0), "whoever does not ask gets none");

    for (path, text) in [("/collects", r#"4 bytes, [("x-sent", "by the client")]"#), ("/echo", "body")] {
        let mut connection = host.http2();
        let mut stream = connection.open("POST", path, &[], false);
        stream.send(b"body", false).expect("the host reads");
        stream.send_trailers(&[("x-sent", "by the client")]);
        let answer = stream.answer().expect("a whole answer");
        assert_eq!(answer.text(), text);
        let back = [("x-sent".to_owned(), "by the client".to_owned())];
        assert_eq!(answer.trailers, if path == "/echo" { &back[..] } else { &[] });
    }
}

#[test]
fn what_has_no_content_has_none_whatever_the_guest_writes() {
    let host = Host::of(GUEST);
    for version in BOTH {
        for (method, path, status, length) in [
            ("GET", "/status?204", 204, None),
            ("GET", "/status?304", 304, None),
            ("GET", "/announces?204", 204, None),
            ("GET", "/announces-an-empty-one?204", 204, None),
            ("HEAD", "/announces?200", 200, Some("12")),
            ("HEAD", "/announces-an-empty-one?200", 200, Some("12")),
            ("HEAD", "/without-end", 200, None),
        ] {
            let answer = host.ask(version, method, path, &[], None).expect("a whole answer");
            assert_eq!((answer.status, answer.text()), (status, ""), "{version:?} {method} {path}");
            assert_eq!(answer.header("content-length"), length, "{version:?} {method} {path}");
            if path != "/without-end" {
                assert_eq!(host.access(&answer)["outcome"], "ok", "{version:?} {method} {path}");
            }
        }
    }
}

#[test]
fn a_guest_that_reads_is_cut_when_its_client_leaves() {
    let host = Host::of(GUEST);
    for path in ["/collects", "/echo"] {
        let mut client = host.connect();
        let peer = client.local_addr().to_string();
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n");
        client.send(head);
        assert_eq!(client.head().status, 100, "the guest has begun to read");
        client.send("half ");
        client.reset();
        let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
        assert_eq!(access["outcome"], "client_gone", "{access}");
    }
    let mut connection = host.http2();
    let mut stream = connection.open("POST", "/echo", &[], false);
    stream.send(b"half ", false).expect("the host reads");
    let head = stream.head().expect("a head");
    stream.cancel();
    assert_eq!(host.access(&head)["outcome"], "client_gone");
}

#[test]
fn a_body_that_ends_early_never_looks_whole() {
    let host = Host::of(GUEST);
    for path in ["/collects", "/echo"] {
        let mut client = host.connect();
        let peer = client.local_addr().to_string();
        client.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf "));
        client.half_close();
        let all = String::from_utf8(client.until_closed()).expect("text");
        match path {
            "/collects" => assert!(!all.contains("no trailers"), "the guest is told: {all}"),
            _ => {
                assert!(!all.ends_with("0\r\n\r\n"), "{all}");
                let access = host.json("that the client left", |line| line["kind"] == "access" && line["peer"] == peer);
                let was_told = all.starts_with("HTTP/1.1 400 ");
                assert_eq!(access["outcome"], if was_told { "bad_request" } else { "client_gone" }, "{access}");
            }
        }
    }
}

#[test]
fn a_body_that_is_too_large_is_413_whatever_the_guest_makes_of_it() {
    let host = Host::with(GUEST).flag("--max-body", "1KiB").start();
    let mut client = host.connect();
    client.send("POST /collects HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send([b"800\r\n", &[b'x'; 2048][..], b"\r\n0\r\n\r\n"].concat());
    let answers = [client.answer(), host.post(Http::Two, "/collects", &[b'x'; 2048])];
    for answer in answers {
        assert_eq!((answer.status, &host.access(&answer)["outcome"]), (413, &"body_too_large".into()));
    }
    for version in BOTH {
        assert_eq!(host.post(version, "/collects", &[b'x'; 1024]).text(), "1024 bytes, no trailers");
        assert_eq!(host.post(version, "/ignores-its-body", b"short").text(), "Hello World!");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_makes_its_guest_wait() {
    let host = Host::of(GUEST);
    let mut first = host.connect();
    first.ask("/without-end");
    assert_eq!(first.head().status, 200);
    let before = host.memory("VmRSS");
    let mut clients: Vec<_> = (0..8).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.ask("/without-end");
        assert_eq!(client.head().status, 200);
        client.exactly(1 << 20).expect("as much as is asked for");
    }
    let grown = host.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 20, "the host grew by {} MiB", grown >> 20);
}
