//! Response bodies leave as they are made, stop when the client stops reading, and are never cut without the client seeing it.

mod support;

use std::io::{self, Cursor, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use astra_server::{Body, Bytes, Exchange, Gone, Request, Response, ResponseBuilder};
use http_body::Frame;
use http_body_util::Full;
use support::client::field;
use support::{Client, Gate, HandlerFn, PATIENCE, endless, pattern, serve, server, signals, start, start_handler};

#[test]
fn a_3_mib_answer_reaches_a_slow_reader_whole() {
    let body = pattern(3 << 20);
    let sent = body.clone();
    let server = serve(move |_req, _info| Response::new(Body::new(sent.clone())));
    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    let head = client.head();
    assert_eq!(head.header("content-length"), Some("3145728"));
    let mut read = Vec::new();
    while read.len() < body.len() {
        std::thread::sleep(Duration::from_millis(2)); // the slowness is what is tested
        read.extend(client.exactly((64 << 10).min(body.len() - read.len())).expect("the whole body"));
    }
    assert!(read == body);
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn slow_readers_hold_no_worker() {
    let workers = 2;
    let body = pattern(3 << 20);
    let sent = body.clone();
    let server = start(server().max_workers(workers), move |req: Request, _info| match req.uri().path() {
        "/large" => Response::new(Body::new(sent.clone())),
        _ => Response::new(Body::new("small")),
    });
    let mut slow: Vec<Client> = (0..2 * workers).map(|_| Client::connect_narrow(server.addr)).collect();
    for client in &mut slow {
        client.ask("/large");
        assert_eq!(client.head().status, 200);
    }
    assert_eq!(server.connect().get("/").text(), "small");
    for client in &mut slow {
        assert!(client.exactly(body.len()).expect("the whole body") == body);
    }
}

#[test]
fn a_reader_is_streamed_to_its_end() {
    let body = pattern(1 << 20);
    let sent = body.clone();
    let server = serve(move |_req, _info| Response::new(Body::wrap_reader(Cursor::new(sent.clone()))));
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert!(answer.body == body);
    }
}

#[test]
fn a_reader_that_blocks_keeps_nobody_waiting() {
    struct Blocks(Gate, bool);
    impl Read for Blocks {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.1, true) {
                return Ok(0);
            }
            self.0.wait();
            buf[0] = b'!';
            Ok(1)
        }
    }
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, _info| match req.uri().path() {
        "/blocks" => Response::new(Body::wrap_reader(Blocks(held.clone(), false))),
        _ => Response::new(Body::new("quick")),
    });
    let mut slow: Vec<Client> = (0..4 * support::cores()).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.ask("/blocks");
    }
    let mut quick = server.connect();
    for _ in 0..20 {
        assert_eq!(quick.get("/").text(), "quick");
    }
    gate.open();
    for client in &mut slow {
        assert_eq!(client.answer().text(), "!");
    }
}

#[test]
fn a_reader_that_fails_cuts_the_connection() {
    struct Fails(bool);
    impl Read for Fails {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the disk is gone"));
            }
            buf[..5].copy_from_slice(b"hello");
            Ok(5)
        }
    }
    let server = serve(|_req, _info| Response::new(Body::wrap_reader(Fails(false))));
    let mut client = server.connect();
    client.ask("/");
    // Nothing was flushed: the connection may be cut before the head is on its way.
    assert!(client.try_answer().is_err(), "a truncated answer was ended as if it were complete");
    client.until_closed();
}

/// Asks, and sees at most `start` of a chunked body: no last chunk, and the end of the connection.
fn is_cut(client: &mut Client, start: &[u8]) {
    client.ask("/");
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    let mut body = Vec::new();
    loop {
        match client.chunk() {
            Ok(Some(chunk)) => body.extend(chunk),
            Ok(None) => panic!("a truncated answer was ended as if it were complete"),
            Err(error) => {
                assert!(support::client::is_end(&error), "{error}");
                break;
            }
        }
    }
    assert!(start.starts_with(&body), "{body:?}");
    client.until_closed();
}

#[test]
fn server_sent_events_arrive_as_they_are_flushed() {
    let (permit, permits) = mpsc::channel::<String>();
    let permits = Mutex::new(Some(permits));
    let server = serve(move |_req, _info| {
        let events = permits.lock().expect("one request").take().expect("one request");
        let body = Body::stream(move |writer| {
            for event in events {
                write!(writer, "data: {event}\n\n")?;
                writer.flush()?;
            }
            Ok(())
        });
        ResponseBuilder::new().header("content-type", "text/event-stream").body(body).expect("valid")
    });
    let mut client = server.connect();
    client.ask("/");
    permit.send("1".to_owned()).expect("the handler is called");
    assert_eq!(client.head().header("content-type"), Some("text/event-stream"));
    assert_eq!(client.chunk().expect("a chunk").expect("not the last"), b"data: 1\n\n");
    for i in 2..20 {
        // The next event is made only after the one before was read.
        permit.send(i.to_string()).expect("the stream goes on");
        let chunk = client.chunk().expect("a chunk").expect("not the last");
        assert_eq!(chunk, format!("data: {i}\n\n").into_bytes());
    }
    drop(permit);
    assert_eq!(client.chunk().expect("the last chunk"), None);
}

#[test]
fn what_was_not_flushed_arrives_at_the_end() {
    let server = serve(|_req, _info| {
        Response::new(Body::stream(|writer| {
            for i in 0..1000 {
                write!(writer, "{i},")?;
            }
            Ok(())
        }))
    });
    let expected: String = (0..1000).map(|i| format!("{i},")).collect();
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), expected);
    assert_eq!(client.get("/").text(), expected);
}

#[test]
fn a_stream_is_held_back_by_a_client_that_does_not_read() {
    let (wrote, progress) = signals();
    let server = serve(move |_req, _info| {
        let wrote = wrote.clone();
        Response::new(Body::stream(move |writer| {
            for _ in 0..1024 {
                writer.write_all(&[b'x'; 64 << 10])?;
            }
            wrote.send(()).expect("the test listens");
            Ok(())
        }))
    });
    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    assert_eq!(client.head().status, 200);
    // 64 MiB fit into no socket buffer: had the closure ended by now, the server would hold the rest in memory.
    assert_eq!(server.connect_and_ping(), 200);
    assert!(progress.is_empty());
    let mut length = 0;
    while let Some(chunk) = client.chunk().expect("a chunk") {
        length += chunk.len();
    }
    assert_eq!(length, 64 << 20);
    progress.next();
}

trait Ping {
    fn connect_and_ping(&self) -> u16;
}

impl Ping for support::Running {
    /// A whole other exchange's head: time enough for the server to have gone wrong.
    fn connect_and_ping(&self) -> u16 {
        let mut client = self.connect();
        client.ask("/");
        client.head().status
    }
}

#[test]
fn a_stream_that_fails_cuts_the_connection() {
    let server = serve(|_req, _info| {
        Response::new(Body::stream(|writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            Err(io::Error::other("no more"))
        }))
    });
    is_cut(&mut server.connect(), b"hello");
    is_cut(&mut server.connect(), b"hello");
}

#[test]
fn a_panic_after_the_head_cuts_the_connection_without_the_last_chunk() {
    let server = serve(|_req, _info| {
        Response::new(Body::stream(|writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            panic!("this panic belongs to the test");
        }))
    });
    for _ in 0..4 {
        is_cut(&mut server.connect(), b"hello");
    }
}

/// Asks as a client of HTTP/1.0 for an answer that starts with `hello`, whose end only the end of the connection tells (RFC 9112
/// section 6.3).
fn ask_as_http_1_0(server: &support::Running, path: &str) -> Client {
    let mut client = server.connect();
    client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
    let head = client.head();
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
    assert_eq!(client.exactly(5).expect("what was flushed"), b"hello");
    client
}

/// The connection must not end as it would after a whole answer.
fn is_reset(client: &mut Client) {
    let error = client.rest().expect_err("a truncated answer looks whole");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn an_answer_of_http_1_0_that_is_cut_ends_with_a_reset() {
    let (go_on, proceed) = mpsc::channel::<()>();
    let proceed = Arc::new(Mutex::new(proceed));
    let server = serve(move |req: Request, _info| {
        let proceed = Arc::clone(&proceed);
        Response::new(Body::stream(move |writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            proceed.lock().expect("no panic").recv_timeout(PATIENCE).expect("the client has read so far");
            match req.uri().path() {
                "/fails" => Err(io::Error::other("no more")),
                "/panics" => panic!("this panic belongs to the test"),
                _ => Ok(()),
            }
        }))
    });
    for path in ["/fails", "/whole", "/panics", "/whole"] {
        let mut client = ask_as_http_1_0(&server, path);
        go_on.send(()).expect("the handler waits");
        if path == "/whole" {
            assert_eq!(client.rest().expect("a clean end"), b"");
        } else {
            is_reset(&mut client);
        }
    }
}

#[test]
fn an_answer_of_http_1_0_that_shutdown_cuts_ends_with_a_reset() {
    let server = serve(|_req, _info| {
        Response::new(Body::stream(|writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            Ok(astra_server::wait(std::future::pending(), None)?)
        }))
    });
    let mut client = ask_as_http_1_0(&server, "/");
    assert!(server.into_handle().shutdown(Duration::ZERO).is_some(), "the answer had no end");
    is_reset(&mut client);
}

#[test]
fn a_body_shorter_than_its_content_length_cuts_the_connection() {
    let server = serve(|_req, _info| {
        let body = Body::stream(|writer| writer.write_all(b"hello"));
        ResponseBuilder::new().header("content-length", "100").body(body).expect("valid")
    });
    let mut client = server.connect();
    client.ask("/");
    assert!(client.try_answer().is_err(), "a cut answer looks whole");
    client.until_closed();
}

#[test]
fn a_body_longer_than_its_content_length_does_not_run_into_the_next_answer() {
    let server = serve(|_req, _info| {
        let body = Body::stream(|writer| {
            // The server may refuse what is too much: that is one of the ways to keep it off the wire.
            let _ = writer.write_all(b"hello, and HTTP/1.1 200 OK");
            Ok(())
        });
        ResponseBuilder::new().header("content-length", "5").body(body).expect("valid")
    });
    let mut client = server.connect();
    client.ask("/");
    match client.try_answer() {
        Ok(answer) => assert_eq!(answer.text(), "hello"),
        Err(error) => assert!(support::client::is_end(&error), "{error}"),
    }
    // Either the connection is closed, or it is in step.
    if client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").is_ok() {
        match client.try_answer() {
            Ok(answer) => assert_eq!(answer.text(), "hello"),
            Err(error) => assert!(support::client::is_end(&error), "{error}"),
        }
    }
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_an_answer_stops_its_stream() {
    for reset in [false, true] {
        let (ended, ends) = signals();
        let server = serve(move |req: Request, _info| {
            if req.uri().path() == "/hello" {
                return Response::new(Body::new("goes on"));
            }
            let ended = ended.clone();
            Response::new(Body::stream(move |writer| {
                let result = loop {
                    if let Err(error) = writer.write_all(&[b'x'; 16 << 10]) {
                        break Err(error);
                    }
                };
                ended.send(()).expect("the test listens");
                result
            }))
        });
        let mut client = server.connect();
        client.ask("/");
        assert_eq!(client.head().status, 200);
        client.exactly(100_000).expect("a part of the body");
        if reset {
            client.reset();
        } else {
            drop(client);
        }
        ends.next();
        assert_eq!(server.connect().get("/hello").text(), "goes on");
    }
}

#[test]
fn a_client_that_goes_away_while_a_stream_waits_is_noticed_at_the_next_writes() {
    let gate = Gate::default();
    let held = gate.clone();
    let (ended, ends) = signals();
    let server = serve(move |_req, _info| {
        let (gate, ended) = (held.clone(), ended.clone());
        Response::new(Body::stream(move |writer| {
            writer.flush()?;
            gate.wait();
            while writer.write_all(&[b'x'; 4096]).and_then(|()| writer.flush()).is_ok() {}
            ended.send(()).expect("the test listens");
            Ok(())
        }))
    });
    let mut client = server.connect();
    client.ask("/");
    assert_eq!(client.head().status, 200);
    drop(client);
    gate.open();
    ends.next();
}

#[test]
fn a_handler_is_told_how_much_of_its_answer_went_out() {
    // More than the server's socket may take (`tcp_wmem`: 4 MiB), and the client's takes little.
    const LENGTH: u64 = 16 << 20;
    let (told, tells) = signals();
    let handler = HandlerFn(move |exchange: Exchange| {
        let told = told.clone();
        // hyper takes all of it at once.
        let body = Full::new(Bytes::from(vec![b'x'; LENGTH as usize]));
        let told = move |sent| told.send(sent).expect("the test listens");
        exchange.responder.send_and_tell(http::Response::new(body), told);
    });
    let server = start_handler(server(), handler);

    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    assert_eq!(client.head().status, 200);
    client.exactly(100 << 10).expect("a part of it");
    assert!(tells.is_empty(), "most of it is not written");
    client.reset();
    let sent = tells.next().expect_err("the client has left");
    assert!((100 << 10..LENGTH).contains(&sent.bytes) && sent.why == Gone::Left, "{sent:?}");

    // Pipelined, and the second without a body.
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\nHEAD / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().body.len() as u64, LENGTH);
    assert_eq!(client.answer_without_body().status, 200);
    assert_eq!((tells.next(), tells.next()), (Ok(LENGTH), Ok(0)));
}

#[test]
fn a_handler_is_told_that_its_answer_failed() {
    let (told, tells) = signals();
    let handler = HandlerFn(move |exchange: Exchange| {
        let told = told.clone();
        let body = Failing(Some(Bytes::from_static(b"hello")));
        let told = move |sent| told.send(sent).expect("the test listens");
        exchange.responder.send_and_tell(http::Response::new(body), told);
    });
    let server = start_handler(server(), handler);
    is_cut(&mut server.connect(), b"hello");
    let sent = tells.next().expect_err("the body has failed");
    assert_eq!((sent.bytes, sent.why), (5, Gone::Left));
}

/// A body that fails after its first frame.
struct Failing(Option<Bytes>);

impl http_body::Body for Failing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = self.0.take().map(Frame::data);
        Poll::Ready(Some(frame.ok_or_else(|| io::Error::other("no more"))))
    }
}

#[test]
fn a_client_that_never_reads_is_dropped_after_the_write_timeout() {
    let (ended, ends) = signals();
    let server = start(server().write_timeout(Duration::from_millis(50)), endless(ended));
    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    ends.next();
}

#[test]
fn announced_trailers_reach_a_client_that_takes_them() {
    let server = serve(|_req, _info| {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-checksum", http::HeaderValue::from_static("abc"));
        let body = Body::stream(|writer| writer.write_all(b"hello")).with_trailers(trailers);
        ResponseBuilder::new().header("trailer", "x-checksum").body(body).expect("valid")
    });
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.text(), "hello");
    assert_eq!(field(&answer.trailers, "x-checksum"), Some("abc"));
    // A client that did not ask for them gets the same body, whole, without.
    let answer = client.get("/");
    assert_eq!(answer.text(), "hello");
    assert_eq!(answer.trailers, []);
}

#[test]
fn an_answer_to_head_runs_no_stream_to_the_client() {
    let server = serve(|_req, _info| Response::new(Body::stream(|writer| writer.write_all(b"hello"))));
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer_without_body().status, 200);
    assert_eq!(client.get("/").text(), "hello");
}
