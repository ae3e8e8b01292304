//! Bodies: they stream both ways, byte by byte if need be; framing is the host's, whatever the guest says.

use crate::harness::{BOTH, Client, Host, Http, Scratch, Setup, guest, root};

#[test]
fn a_body_that_comes_after_its_head_is_read() {
    let host = Host::of("echo");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    // The guest runs and waits: its answer's head shows it.
    assert_eq!(client.head().status, 200);
    for byte in b"Hello" {
        client.send([*byte]);
        assert_eq!(client.exactly(1).expect("it comes back at once"), [*byte]);
    }
}

#[test]
fn a_chunked_body_comes_back_as_it_comes() {
    let host = Host::of("echo");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    for part in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        assert_eq!(client.chunk().expect("it comes back at once").expect("not the end"), part.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().expect("the last chunk"), None);
}

#[test]
fn a_body_over_http2_comes_back_as_it_comes() {
    let host = Host::of("echo");
    let mut connection = host.http2();
    let mut stream = connection.open("POST", "/", &[], false);
    assert_eq!(stream.head().expect("a head").status, 200);
    for part in ["one", "two", "three"] {
        stream.send(part.as_bytes(), false).expect("the host reads");
        assert_eq!(stream.chunk().expect("it comes back at once").expect("not the end"), part);
    }
    stream.send(b"four", true).expect("the host reads");
    assert_eq!(stream.rest().expect("the end"), b"four");
}

#[test]
fn a_request_that_comes_byte_by_byte_is_served() {
    let host = Host::of("echo");
    let mut client = host.connect();
    for byte in b"POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "Hello");
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let host = Host::of("reads_body_stalled");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("Hello");
    assert_eq!(client.answer().text(), "5 bytes in 1 chunks\n");
}

#[test]
fn a_guest_that_does_not_read_its_body_answers_all_the_same() {
    let host = Host::of("hello");
    let body = vec![b'x'; 1 << 20];
    for version in BOTH {
        assert_eq!(host.post(version, "/", &body).text(), "Hello World!");
    }
}

#[test]
fn trailers_go_both_ways() {
    let host = Host::of("sends_trailers");
    let mut client = host.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: test\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-sent\r\n\r\n\
         4\r\nbody\r\n0\r\nx-sent: by the client\r\n\r\n",
    );
    let answer = client.answer();
    assert_eq!(answer.text(), "x-sent: by the client\ndata");
    assert_eq!(answer.trailers, [("x-checksum".to_owned(), "8d777f38".to_owned())]);

    let mut connection = host.http2();
    let mut stream = connection.open("POST", "/", &[("te", "trailers")], false);
    stream.send(b"body", false).expect("the host reads");
    stream.send_trailers(&[("x-sent", "by the client")]);
    let answer = stream.answer().expect("a whole answer");
    assert_eq!(answer.text(), "x-sent: by the client\ndata");
    assert_eq!(answer.trailers, [("x-checksum".to_owned(), "8d777f38".to_owned())]);
}

#[test]
fn every_call_on_streams_works() {
    let host = Host::of("uses_every_stream_call");
    for version in BOTH {
        assert_eq!(host.post(version, "/", b"skipthe rest").body, b"the rest\0\0\0\0");
    }
    // Late and in pieces, so that each call has to wait.
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 12\r\n\r\n");
    for byte in b"skipthe rest" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().body, b"the rest\0\0\0\0");
}

#[test]
fn a_guest_can_wait_for_several_things_at_once() {
    let host = Host::of("polls_a_list");
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\n");
    // The guest sends nothing until it has both, so the body has to follow without a sign.
    client.send("late");
    let answer = client.answer();
    assert!(answer.text().ends_with("ready: [1]\nready: [1]\n"), "{}", answer.text());
}

#[test]
fn chunks_are_counted_as_the_guest_gets_them() {
    let host = Host::of("reads_body_stalled");
    for version in BOTH {
        let answer = host.post(version, "/", b"0123456789");
        assert!(answer.text().starts_with("10 bytes in "), "{}", answer.text());
        assert_eq!(host.access(&answer)["bytes_in"], 10);
    }
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    for (name, length) in [("hello", Some("12")), ("sse", None)] {
        let host = Host::of(name);
        for version in BOTH {
            let answer = host.ask(version, "HEAD", "/?count=1", &[], None).expect("an answer");
            assert_eq!((answer.status, answer.header("content-length")), (200, length), "{name} {version:?}");
            assert!(answer.body.is_empty());
            let access = host.access(&answer);
            assert_eq!((&access["bytes_out"], &access["outcome"]), (&0.into(), &"ok".into()), "{access}");
        }
        let mut client = host.connect();
        client.send("HEAD /?count=1 HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.answer_without_body().status, 200);
        assert_eq!(client.get("/?count=1").status, 200, "nothing is left over on the connection");
    }
}

#[test]
fn what_a_guest_says_about_the_connection_is_removed() {
    let host = Host::of("hop_by_hop_headers");
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!(answer.status, 200);
        for name in ["keep-alive", "proxy-connection", "upgrade", "te", "http2-settings", "host"] {
            assert_eq!(answer.header(name), None, "{version:?} {name}");
        }
        assert_ne!(answer.header("connection"), Some("close, x-named"));
        let harmless = answer.headers.iter().filter(|(name, _)| name == "x-harmless").map(|(_, value)| value.as_str());
        assert_eq!(harmless.collect::<Vec<_>>(), ["one", "two"]);
    }
}

/// A package of a stranger's: no workspace of ours, no profile `guest`. It answers with the status that the path says, and a body;
/// for `/late` it says the body's length, writes it, and ends it a while later.
fn strangers_package() -> Scratch {
    guest("hello"); // whose build has fetched what this one needs
    let package = Scratch::new();
    let sdk = root().join("guest-sdk");
    package.file(
        "Cargo.toml",
        format!(
            "[package]\nname = \"strangers\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[lib]\n\
             crate-type = [\"cdylib\"]\n\n[dependencies]\nguest-sdk = {{ path = {sdk:?} }}\n\n[workspace]\n"
        ),
    );
    let source = r#"
        use std::{thread, time::Duration};
        use guest_sdk::{Body, Request, Response, ResponseBuilder, handler, http};

        #[handler]
        fn status(request: Request) -> Result<Response, http::Error> {
            let status = request.uri().path().trim_start_matches('/');
            if status == "late" {
                return ResponseBuilder::new().header("content-length", "6").body(Body::stream(|writer| {
                    writer.write_all(b"a body")?;
                    writer.flush()?;
                    thread::sleep(Duration::from_millis(200));
                    println!("ended late");
                    Ok(())
                }));
            }
            ResponseBuilder::new().status(status).body(Body::stream(|writer| writer.write_all(b"a body")))
        }
    "#;
    package.file("src/lib.rs", source);
    // The versions that this repository was tested with, and nothing to look up.
    package.file("Cargo.lock", std::fs::read(root().join("Cargo.lock")).expect("cargo has made it"));
    package
}

#[test]
fn a_package_that_is_not_ours_is_built_and_answers_as_http_wants_it() {
    let package = strangers_package();
    let host = Setup::run(package.path()).start();
    for version in BOTH {
        for status in [204, 304] {
            let answer = host.get(version, &format!("/{status}"));
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{version:?}");
            let access = host.access(&answer);
            assert_eq!((&access["outcome"], &access["handler"]), (&"ok".into(), &"strangers".into()));
        }
        for status in [200, 404, 500, 599] {
            let answer = host.get(version, &format!("/{status}"));
            assert_eq!((answer.status, answer.text()), (status, "a body"), "{version:?}");
        }
    }
    let mut client = host.connect();
    for status in [204, 304, 200, 204, 200] {
        // A body where none may be would be taken for the next answer.
        assert_eq!(client.get(&format!("/{status}")).status, status);
    }

    // A client that has all it was promised is not gone, and its guest goes on.
    let mut client = host.connect();
    let answer = client.get("/late");
    assert_eq!(answer.text(), "a body");
    let access = host.access(&answer);
    assert_eq!(access["outcome"], "ok", "{access}");
    host.stderr_with("ended late");
    let answer = host.get(Http::Two, "/late");
    assert_eq!(answer.text(), "a body");
    assert_eq!(host.access(&answer)["outcome"], "ok");
}

#[test]
fn a_large_response_reaches_a_slow_reader_whole() {
    let host = Host::of("echo");
    let body = crate::harness::pattern(3 << 20);
    let mut client = Client::connect_narrow(host.addr());
    let length = body.len();
    let (mut sender, sent) = (client.stream().try_clone().expect("a socket"), body.clone());
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        write!(sender, "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n").expect("sent");
        sender.write_all(&sent).expect("the host reads");
    });
    let answer = client.answer();
    sending.join().expect("sent");
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    assert_eq!(host.get(Http::One, "/").status, 200);
}
