//! The examples of this repository do what their READMEs say, over HTTP/1.1 and HTTP/2.

use serde_json::{Value, json};

use crate::harness::{BOTH, Host, Scratch, Setup, guest, pattern};

fn json(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
}

#[test]
fn hello_says_hello() {
    let host = Host::of("hello");
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, answer.text()), (200, "Hello World!"));
        assert_eq!(answer.header("content-length"), Some("12"), "a guest that knows its length says it");
    }
}

#[test]
fn hello_is_smaller_than_100_kib() {
    let bytes = std::fs::metadata(guest("hello")).expect("it is built").len();
    assert!(bytes < 100 * 1024, "{bytes} bytes");
}

#[test]
fn one_connection_serves_many_requests() {
    let host = Host::of("hello");
    let mut client = host.connect();
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "Hello World!");
    }
    let mut connection = host.http2();
    let streams: Vec<_> = (0..100).map(|_| connection.open("GET", "/", &[], true)).collect();
    for stream in streams {
        assert_eq!(stream.answer().expect("a whole answer").text(), "Hello World!");
    }
}

#[test]
fn echo_sends_back_a_megabyte() {
    let host = Host::of("echo");
    let body = pattern(1 << 20);
    for version in BOTH {
        let answer = host.post(version, "/", &body);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{version:?}: {} bytes came back", answer.body.len());
        let access = host.access(&answer);
        assert_eq!((&access["bytes_in"], &access["bytes_out"]), (&json!(1 << 20), &json!(1 << 20)));
    }
}

#[test]
fn sse_ticks_as_often_as_it_is_asked() {
    let host = Host::of("sse");
    for version in BOTH {
        let answer = host.get(version, "/?ms=10&count=3");
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let events: Vec<&str> = answer.text().split_terminator("\n\n").collect();
        assert_eq!(events.len(), 3, "{}", answer.text());
        assert!(events[2].starts_with("id: 3\ndata: ") && events[2].ends_with(" UTC"), "{}", events[2]);
    }
}

#[test]
fn an_event_arrives_before_the_next_one_is_written() {
    let host = Host::of("sse");
    let mut client = host.connect();
    // The second event is an hour away.
    client.ask("/?ms=3600000&count=2");
    assert_eq!(client.head().status, 200);
    let first = client.chunk().expect("an event").expect("not the end");
    assert!(first.starts_with(b"id: 1\n"));

    let mut connection = host.http2();
    let mut stream = connection.open("GET", "/?ms=3600000&count=2", &[], true);
    assert_eq!(stream.head().expect("a head").status, 200);
    let first = stream.chunk().expect("an event").expect("not the end");
    assert!(first.starts_with(b"id: 1\n"));
}

#[test]
fn files_serves_the_granted_directory_and_nothing_else() {
    let host = Host::with("files").flag("--dir", "examples/files/public::/www").start();
    for version in BOTH {
        let answer = host.get(version, "/");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(answer.text().contains("<h1>Served by a guest</h1>"));
        for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/missing", "/index.html/x"] {
            assert_eq!(host.get(version, path).status, 404, "{path}");
        }
        assert_eq!(host.post(version, "/", b"").status, 405);
        let part = host.ask(version, "GET", "/", &[("range", "bytes=0-8")], None).expect("an answer");
        assert_eq!((part.status, part.text()), (206, "<!doctype"));
        let many = format!("bytes=0-{}", ",0-".repeat(1000));
        assert_eq!(host.ask(version, "GET", "/", &[("range", &many)], None).expect("an answer").status, 416);
        let head = host.ask(version, "HEAD", "/", &[], None).expect("an answer");
        assert_eq!(head.header("content-length"), answer.header("content-length"));
        assert!(head.body.is_empty());
    }
}

#[test]
fn files_without_the_grant_says_in_the_log_what_to_do() {
    let host = Host::of("files");
    host.expect("/", 500, "ok");
    host.stderr_with("--dir FOLDER::/www");
}

#[test]
fn router_answers_json() {
    let host = Host::of("router");
    for version in BOTH {
        let walden = json!({"id": 2, "title": "Walden", "year": 1854});
        assert_eq!(json(&host.get(version, "/books/2").body), walden);
        let added = host.post(version, "/books", br#"{"title": "Emma", "year": 1815}"#);
        assert_eq!((added.status, added.header("location")), (201, Some("/books/4")));
        assert_eq!(json(&added.body), json!({"id": 4, "title": "Emma", "year": 1815}));
        assert_eq!(host.ask(version, "DELETE", "/books", &[], None).expect("an answer").status, 405);
        assert_eq!(host.get(version, "/nowhere").status, 404);
        assert_eq!(host.post(version, "/books", b"{}").status, 400);
    }
}

#[test]
fn notes_keeps_what_it_is_told_in_the_directory_that_is_granted() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.join("kept")).expect("ours");
    let host = Host::with("notes").flag("--dir", format!("{}::/notes:rw", scratch.join("kept").display())).start();
    for (version, id) in BOTH.into_iter().zip(1..) {
        let json_of = &[("content-type", "application/json")];
        let added = host.ask(version, "POST", "/notes", json_of, Some(br#"{"title": "Milk", "text": ""}"#));
        let added = added.expect("an answer");
        let path = format!("/notes/{id}");
        assert_eq!((added.status, added.header("location")), (201, Some(&*path)));
        let note = json!({"id": id, "title": "Milk", "text": ""});
        assert_eq!(json(&host.get(version, &path).body), note);
        assert_eq!(json(&host.get(version, "/notes").body), json!([note]));
        assert_eq!(host.ask(version, "DELETE", &path, &[], None).expect("an answer").status, 204);
        assert_eq!(host.get(version, &path).status, 404);
    }
    let host = Host::of("notes");
    host.expect("/notes", 500, "ok");
    host.stderr_with("--dir FOLDER::/notes:rw");
}

#[test]
fn nothing_of_a_request_is_left_for_the_next() {
    let host = Host::of("router");
    let mut client = host.connect();
    for _ in 0..20 {
        assert_eq!(client.post("/books", br#"{"title": "Emma", "year": 1815}"#).status, 201);
        assert_eq!(json(&client.get("/books").body).as_array().expect("a list").len(), 3);
    }
}

#[test]
fn slow_guests_wait_side_by_side() {
    let host = Host::of("slow");
    for version in BOTH {
        assert_eq!(host.get(version, "/?ms=10").text(), "slept 10 ms\n");
    }
    // If each kept its seat, most would wait for one until they got 503.
    let mut clients: Vec<_> = (0..200).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.ask("/?ms=1000");
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "slept 1000 ms\n");
    }
}

#[test]
fn a_directory_of_a_package_is_built_and_served() {
    // Builds of the same package must not meet.
    guest("hello");
    let host = Setup::run("examples/hello").start();
    host.stdout_with("hello.wasm: component, WASI HTTP 0.2");
    for version in BOTH {
        assert_eq!(host.get(version, "/").text(), "Hello World!");
    }
}
