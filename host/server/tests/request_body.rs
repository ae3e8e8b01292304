//! Request bodies reach a blocking handler whole, however late and in whatever pieces they come.

mod support;

use std::io::Read;
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Request, Response, ResponseBuilder};
use support::{Client, Gate, pattern, serve, server, signals, start};

/// Answers with the body it read, 400 if it could not.
fn echo(mut request: Request, _info: ConnectionInfo) -> Response {
    let mut body = Vec::new();
    match request.body_mut().reader().read_to_end(&mut body) {
        Ok(_) => Response::new(Body::new(body)),
        Err(error) => {
            let text = Body::new(error.to_string());
            ResponseBuilder::new().status(400).body(text).expect("valid")
        }
    }
}

#[test]
fn a_1_mib_body_arrives_whole() {
    let server = serve(echo);
    let body = pattern(1 << 20);
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.post("/", &body);
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes came back, or others", answer.body.len());
    }
}

#[test]
fn a_body_whose_bytes_come_100_ms_after_the_head_arrives() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100)); // the lateness is what is tested
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn a_body_sent_once_the_handler_waits_for_it_arrives() {
    let (called, calls) = signals();
    let server = serve(move |req, info| {
        called.send(()).expect("the test listens");
        echo(req, info)
    });
    let mut client = server.connect();
    for _ in 0..100 {
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n");
        calls.next();
        client.send("hello");
        client.send("world");
        assert_eq!(client.answer().text(), "helloworld");
    }
}

#[test]
fn a_body_that_comes_byte_by_byte_arrives() {
    let server = serve(echo);
    let mut client = server.connect();
    let body = pattern(300);
    client.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len()));
    for byte in &body {
        client.send([*byte]);
    }
    assert_eq!(client.answer().body, body);
}

#[test]
fn a_chunked_body_that_comes_byte_by_byte_arrives() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for byte in b"5\r\nhello\r\n7;with=extension\r\n chunks\r\n0\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "hello chunks");
    assert_eq!(client.post("/", b"next").text(), "next");
}

#[test]
fn a_handler_sees_each_part_of_a_body_as_it_comes() {
    let (seen, parts) = signals();
    let server = serve(move |mut req: Request, _info| {
        let mut body = req.body_mut().reader();
        let mut buffer = [0; 64];
        loop {
            let n = body.read(&mut buffer).expect("the client sends all");
            if n == 0 {
                return Response::new(Body::new("done"));
            }
            seen.send(String::from_utf8_lossy(&buffer[..n]).into_owned()).expect("the test listens");
        }
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for part in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{part}\r\n", part.len()));
        assert_eq!(parts.next(), part);
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "done");
}

#[test]
fn a_body_can_be_iterated_by_chunks() {
    let server = serve(|mut req: Request, _info| {
        let chunks: Result<Vec<_>, _> = req.body_mut().collect();
        let whole = chunks.expect("the client sends all").concat();
        Response::new(Body::new(whole))
    });
    let body = pattern(300_000);
    assert!(server.connect().post("/", &body).body == body);
}

#[test]
fn an_empty_body_ends_at_once() {
    let server = serve(echo);
    let mut client = server.connect();
    assert_eq!(client.get("/").body, b"");
    assert_eq!(client.post("/", b"").body, b"");
}

#[test]
fn expect_100_continue_is_answered_when_the_handler_reads() {
    let server = serve(echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
}

#[test]
fn expect_100_continue_is_not_answered_when_the_handler_does_not_read() {
    let server = serve(|_req, _info| ResponseBuilder::new().status(403).body(Body::empty()).expect("valid"));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.head().status, 403);
}

#[test]
fn as_many_stalled_bodies_as_seats_do_not_keep_others_waiting() {
    let stalled = 4 * support::cores();
    let (called, calls) = signals();
    let server = start(server().max_workers(2 * stalled), move |req: Request, info| {
        if req.method() == "POST" {
            called.send(()).expect("the test listens");
        }
        echo(req, info)
    });
    let mut clients: Vec<Client> = (0..stalled).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
        calls.next();
    }
    assert_eq!(server.connect().get("/").status, 200);
    for client in &mut clients {
        client.send("world");
        assert_eq!(client.answer().text(), "helloworld");
    }
}

#[test]
fn a_handler_may_answer_before_it_has_read_the_body() {
    let server = serve(|_req, _info| Response::new(Body::new("early")));
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nonly a part");
    assert_eq!(client.answer().text(), "early");
}

#[test]
fn an_echo_moves_both_ways_at_once() {
    // 8 MiB through: neither the sockets nor the server can hold it, so the answer has to start before the body has ended.
    let server = start(server().max_body(64 << 20), |req: Request, _info| Response::new(req.into_body()));
    let body = pattern(8 << 20);
    let client = server.connect();
    let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        sender.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", sent.len()));
        sender.send(&sent);
    });
    let mut client = client;
    assert!(client.answer().body == body);
    sending.join().expect("all was sent");
}

#[test]
fn many_echoes_at_once_lose_nothing() {
    let server = serve(|req: Request, _info| Response::new(req.into_body()));
    let addr = server.addr;
    let clients: Vec<_> = (1..=16)
        .map(|seed: usize| {
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                let mut sender = Client::over(client.stream().try_clone().expect("a second handle of the socket"));
                for round in 1..=20 {
                    let body = pattern(seed * round * 997 % 300_000);
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            let length = body.len();
                            sender.send(format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n"));
                            for part in body.chunks(1 + seed * round * 131 % 70_000) {
                                sender.send(part);
                            }
                        });
                        assert!(client.answer().body == body, "client {seed}, round {round}");
                    });
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every echo came back");
    }
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_its_body_is_an_error_to_the_handler() {
    for reset in [false, true] {
        let (called, calls) = signals();
        let (ended, ends) = signals();
        let server = serve(move |mut req: Request, _info| {
            if req.method() == "GET" {
                return Response::new(Body::new("goes on"));
            }
            called.send(()).expect("the test listens");
            let mut body = Vec::new();
            let result = req.body_mut().reader().read_to_end(&mut body);
            ended.send(result.is_err()).expect("the test listens");
            Response::new(Body::empty())
        });
        let mut client = server.connect();
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nonly a part");
        calls.next();
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        assert!(ends.next(), "a cut body was taken for a whole one");
        assert_eq!(server.connect().get("/").text(), "goes on");
    }
}

#[test]
fn a_chunked_body_without_its_last_chunk_is_an_error_to_the_handler() {
    let (ended, ends) = signals();
    let server = serve(move |req, info| {
        let response = echo(req, info);
        ended.send(response.status()).expect("the test listens");
        response
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.half_close();
    assert_eq!(ends.next(), 400);
    client.until_closed();
}

#[test]
fn a_stalled_body_times_out() {
    let server = start(server().body_read_timeout(Duration::from_millis(50)), echo);
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nonly a part");
    // The handler saw an error and answered, or the server did (408); a body that is still owed ends the connection.
    let answer = client.answer();
    assert!(matches!(answer.status, 400 | 408), "{}", answer.status);
    client.until_closed();
}

#[test]
fn trailers_of_a_request_follow_its_body() {
    let server = serve(|mut req: Request, _info| {
        let mut body = String::new();
        req.body_mut().reader().read_to_string(&mut body).expect("the client sends all");
        let trailers = req.body_mut().trailers().expect("the client sent trailers");
        Response::new(Body::new(format!("{body} {:?}", trailers["x-checksum"])))
    });
    let mut client = server.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: test\r\ntrailer: x-checksum\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n",
    );
    assert_eq!(client.answer().text(), "hello \"abc\"");
}

#[test]
fn a_request_without_trailers_has_none() {
    let server = serve(|mut req: Request, _info| {
        let mut body = Vec::new();
        req.body_mut().reader().read_to_end(&mut body).expect("the client sends all");
        Response::new(Body::new(format!("{:?}", req.body_mut().trailers())))
    });
    assert_eq!(server.connect().post("/", b"hello").text(), "None");
}

#[test]
fn a_body_can_be_read_from_another_thread() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, info| {
        held.wait();
        std::thread::spawn(move || echo(req, info)).join().expect("echo does not panic")
    });
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    gate.open();
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
}
