//! What reviewers broke once, each as they broke it.

mod support;

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use astra_server::{Body, Bytes, Exchange, Request, Response, ResponseBuilder, blocking};
use http_body::Frame;
use support::{Client, Gate, HandlerFn, PATIENCE, cores, pattern, serve, server, signals, start, start_handler};

#[test]
fn a_body_that_is_still_coming_after_the_answer_is_never_taken_for_a_request() {
    let (seen, sees) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start_handler(
        server(),
        HandlerFn(move |exchange: Exchange| {
            seen.send(exchange.request.uri().path().to_owned()).expect("the test listens");
            exchange.responder.send(http::Response::new(http_body_util::Full::new(Bytes::from_static(b"early"))));
            // The body is neither read nor dropped, and the connection has nothing else to do.
            blocking(|| held.wait());
        }),
    );
    let mut client = server.connect();
    client.send("POST /first HTTP/1.1\r\nhost: test\r\ncontent-length: 46\r\n\r\n");
    assert_eq!(client.answer().text(), "early");
    assert_eq!(sees.next(), "/first");
    // Longer than it takes an idle connection to give its buffers back.
    std::thread::sleep(Duration::from_millis(1500));
    client.send("GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n12345678");
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    assert!(sees.is_empty(), "a part of the body was taken for a request");
}

#[test]
fn shutdown_sends_all_of_an_answer_that_hyper_has_taken_but_not_written() {
    let body = pattern(8 << 20);
    let sent = body.clone();
    let server = serve(move |_req, _info| Response::new(Body::new(sent.clone())));
    let mut client = Client::connect_narrow(server.addr);
    client.ask("/");
    assert_eq!(client.head().status, 200);
    let handle = server.into_handle();
    let stopping = std::thread::spawn(move || handle.shutdown(PATIENCE));
    std::thread::sleep(Duration::from_millis(100));
    assert!(client.exactly(body.len()).expect("the whole body") == body);
    drop(client);
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn a_body_can_be_read_inside_of_blocking() {
    let server = serve(|mut req: Request, _info| {
        let mut body = Vec::new();
        blocking(|| req.body_mut().reader().read_to_end(&mut body)).expect("a whole body");
        Response::new(Body::new(body))
    });
    let mut late: Vec<Client> = (0..4 * cores()).map(|_| server.connect()).collect();
    for client in &mut late {
        client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\n");
    }
    assert_eq!(server.connect().post("/", b"other").text(), "other");
    for client in &mut late {
        client.send("bytes");
        assert_eq!(client.answer().text(), "bytes");
    }
}

#[test]
fn an_answer_given_inside_of_blocking_is_sent_at_once() {
    let gate = Gate::default();
    let held = gate.clone();
    let server = start_handler(
        server(),
        HandlerFn(move |exchange: Exchange| {
            blocking(|| {
                exchange.responder.send(http::Response::new(http_body_util::Full::new(Bytes::from_static(b"now"))));
                held.wait();
            });
        }),
    );
    assert_eq!(server.connect().get("/").text(), "now");
    gate.open();
}

/// Never ends, and takes it badly when it is dropped.
struct Bomb;

impl http_body::Body for Bomb {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        Poll::Pending
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn a_response_body_that_panics_when_dropped_costs_no_worker() {
    let server = serve(|req: Request, _info| match req.uri().path() {
        "/bomb" => Response::new(Body::wrap(Bomb)),
        _ => Response::new(Body::new("served")),
    });
    for _ in 0..2 * cores() + 2 {
        let mut client = server.connect();
        client.ask("/bomb");
        assert_eq!(client.head().status, 200);
        client.reset();
    }
    assert_eq!(server.connect().get("/").text(), "served");
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
}

#[test]
fn the_queue_has_room_for_a_live_client_when_those_in_it_are_gone() {
    let gate = Gate::default();
    let held = gate.clone();
    let (called, calls) = signals();
    let server = start(server().max_workers(1).queue(8, PATIENCE), move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            blocking(|| held.wait());
        }
        Response::new(Body::new("served"))
    });
    let mut busy = server.connect();
    busy.ask("/hold");
    calls.next();
    for _ in 0..32 {
        let mut dead = server.connect();
        dead.ask("/dead");
        dead.reset();
    }
    let mut live = server.connect();
    live.ask("/live");
    gate.open();
    assert_eq!(live.answer().text(), "served");
    assert_eq!(busy.answer().text(), "served");
}

/// A body of one frame that never says it is at its end.
struct Unfinished(Option<Frame<Bytes>>);

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        self.0.take().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(frame))))
    }
}

/// A client that has read `text`, all of such a body, is not taken for gone while the handler goes on, and is served again.
fn is_not_gone_after(text: &str, response: fn(ResponseBuilder) -> http::Result<http::Response<Unfinished>>) {
    let (told, tells) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start_handler(
        server(),
        HandlerFn(move |exchange: Exchange| {
            let client = exchange.responder.client();
            exchange.responder.send(response(ResponseBuilder::new()).expect("a valid head"));
            blocking(|| held.wait());
            told.send(client.is_gone()).expect("the test listens");
        }),
    );
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), text);
    gate.open();
    assert!(!tells.next(), "the client is still there");
    assert_eq!(client.get("/").text(), text);
}

#[test]
fn a_client_that_has_all_the_bytes_it_was_promised_is_not_gone() {
    is_not_gone_after("bytes", |head| {
        head.header("content-length", 5).body(Unfinished(Some(Frame::data(Bytes::from_static(b"bytes")))))
    });
}

#[test]
fn a_client_that_has_the_trailers_is_not_gone() {
    is_not_gone_after("", |head| head.body(Unfinished(Some(Frame::trailers(http::HeaderMap::new())))));
}

#[test]
fn a_target_in_a_form_of_another_method_or_with_user_information_is_400() {
    let server = serve(|_req, _info| Response::new(Body::new("served")));
    for target in ["test:80", "*", "http://user:password@test/"] {
        let mut client = server.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n"));
        assert_eq!(client.answer().status, 400, "{target}");
    }
    let mut client = server.connect();
    client.send("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "served");
}

#[test]
fn an_http2_client_that_opens_no_window_holds_no_worker_for_ever() {
    let (ended, ends) = signals();
    let server =
        start(server().write_timeout(Duration::from_millis(200)).max_workers(2), move |req: Request, _info| {
            if req.uri().path() != "/endless" {
                return Response::new(Body::new("served"));
            }
            let ended = ended.clone();
            Response::new(Body::stream(move |writer| {
                use std::io::Write;
                let result = loop {
                    if let Err(error) = writer.write_all(&[0; 4096]) {
                        break Err(error);
                    }
                };
                ended.send(()).expect("the test listens");
                result
            }))
        });
    let mut client = server.connect();
    // SETTINGS with INITIAL_WINDOW_SIZE 0, and GET /endless on two streams (static table: `GET`, `http`; literals).
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00");
    for stream in [1, 3] {
        let head = b"\x82\x86\x04\x08/endless\x01\x04test";
        client.send([&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, stream], head.as_slice()].concat());
    }
    ends.next();
    ends.next();
    assert_eq!(server.connect().get("/").text(), "served");
}

#[test]
fn a_server_that_can_start_no_thread_answers_503() {
    // No address space has room for such a stack.
    let server = start(server().worker_stack(1 << 47).queue(8, Duration::from_millis(50)), |_req, _info| {
        Response::new(Body::new("served"))
    });
    let mut client = server.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
}

#[test]
fn ticks_come_again_when_a_handler_computes_after_a_long_wait() {
    let ticks = Arc::new(AtomicUsize::new(0));
    let counted = ticks.clone();
    let server = server().on_tick(move || {
        counted.fetch_add(1, SeqCst);
    });
    let server = start(server, move |_req: Request, _info| {
        // Long enough for the monitor to go to sleep.
        blocking(|| std::thread::sleep(Duration::from_millis(200)));
        let (before, end) = (ticks.load(SeqCst), Instant::now() + PATIENCE);
        while ticks.load(SeqCst) == before && Instant::now() < end {
            std::hint::spin_loop();
        }
        Response::new(Body::new(if ticks.load(SeqCst) > before { "ticked" } else { "stood still" }))
    });
    assert_eq!(server.connect().get("/").text(), "ticked");
}
