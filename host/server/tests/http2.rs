//! HTTP/2 with prior knowledge on the port that also speaks HTTP/1.1: many streams on one connection, each an exchange of its own.

mod support;

use std::future::{Future, pending};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use astra_server::{Body, Bytes, Exchange, Gone, Interrupted, Request, Response, ResponseBuilder, blocking, wait};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::Full;
use support::frames::{self, DATA, GOAWAY, INITIAL_WINDOW_SIZE, RST_STREAM, rst_stream, window_update};
use support::{Gate, HandlerFn, PATIENCE, pattern, serve, server, signals, start, start_handler};
use tokio::task::JoinHandle;

/// Runs a client; its connection moves on a thread of its own, so that the test may block.
fn run<F: Future>(client: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, client).await.expect("the server answers") })
}

type Connection = JoinHandle<Result<(), h2::Error>>;

async fn connect(addr: SocketAddr) -> (SendRequest<Bytes>, Connection) {
    let stream = tokio::net::TcpStream::connect(addr).await.expect("the server accepts");
    stream.set_nodelay(true).expect("TCP has nodelay");
    let (requests, connection) = h2::client::handshake(stream).await.expect("the server speaks HTTP/2");
    (requests, tokio::spawn(connection))
}

fn request(method: &str, path: &str) -> http::Request<()> {
    http::Request::builder().method(method).uri(format!("http://test{path}")).body(()).expect("a valid request")
}

/// Sends `GET path` without waiting for the answer.
async fn ask(requests: &mut SendRequest<Bytes>, path: &str) -> ResponseFuture {
    let mut ready = requests.clone().ready().await.expect("room for a stream");
    ready.send_request(request("GET", path), true).expect("the request is valid").0
}

async fn get(requests: &mut SendRequest<Bytes>, path: &str) -> (u16, Vec<u8>) {
    let response = ask(requests, path).await.await.expect("an answer");
    let status = response.status().as_u16();
    (status, whole(response.into_body()).await.expect("the whole body"))
}

async fn whole(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.expect("the stream is open")?;
        let part = data.split_to(capacity.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

fn echo_path(request: &Request) -> Response {
    Response::new(Body::new(request.uri().path().to_owned()))
}

#[test]
fn one_port_speaks_both_versions() {
    let server = serve(|req: Request, _info| Response::new(Body::new(format!("{:?}", req.version()))));
    assert_eq!(server.connect().get("/").text(), "HTTP/1.1");
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        assert_eq!(get(&mut requests, "/").await, (200, b"HTTP/2.0".to_vec()));
    });
}

#[test]
fn a_preface_that_comes_byte_by_byte_is_a_preface() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let mut client = server.connect();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
    }
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
    let frame = client.exactly(9).expect("a frame");
    assert_eq!(frame[3], 4, "the server's SETTINGS");
}

#[test]
fn a_request_that_starts_like_a_preface_is_http_1() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let mut client = server.connect();
    // `PUT` shares its first letter with the preface, `PRI` shares three.
    client.send("P");
    client.send("UT /put HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "/put");
    let mut client = server.connect();
    client.send("PRI");
    client.send(" /pri HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().text(), "/pri");
}

#[test]
fn the_authority_of_a_request_reaches_the_handler() {
    let server = serve(|req: Request, _info| {
        Response::new(Body::new(format!("{:?}", req.uri().authority().map(|authority| authority.as_str()))))
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        assert_eq!(get(&mut requests, "/").await.1, b"Some(\"test\")");
    });
}

#[test]
fn a_hundred_concurrent_streams_are_answered() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        for round in 0..5 {
            let mut answers = Vec::new();
            for i in 0..100 {
                answers.push(ask(&mut requests, &format!("/{round}/{i}")).await);
            }
            for (i, answer) in answers.into_iter().enumerate() {
                let answer = answer.await.expect("an answer");
                let body = whole(answer.into_body()).await.expect("the whole body");
                assert_eq!(body, format!("/{round}/{i}").into_bytes());
            }
        }
    });
}

#[test]
fn a_hundred_handlers_of_one_connection_wait_at_once() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(128), move |req: Request, _info| {
        called.send(()).expect("the test listens");
        blocking(|| held.wait());
        echo_path(&req)
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let mut answers = Vec::new();
        for i in 0..100 {
            answers.push(ask(&mut requests, &format!("/{i}")).await);
        }
        for _ in 0..100 {
            calls.next();
        }
        gate.open();
        for (i, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.expect("an answer");
            assert_eq!(whole(answer.into_body()).await.expect("the body"), format!("/{i}").into_bytes());
        }
    });
}

#[test]
fn streams_beyond_what_a_connection_may_queue_wait_and_leave_room_for_others() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    // One handler at a time; a connection may have two requests queued, and all of them together three.
    let server = start(server().seats(1).max_workers(1).queue(3, PATIENCE), move |req: Request, _info| {
        called.send(()).expect("the test listens");
        blocking(|| held.wait());
        echo_path(&req)
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let mut answers = vec![ask(&mut requests, "/0").await];
        calls.next();
        for i in 1..50 {
            answers.push(ask(&mut requests, &format!("/{i}")).await);
        }
        // Answered without a place in the queue, and after the server has seen all of the above.
        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let (refused, _stream) = ready.send_request(request("TRACE", "/"), true).expect("valid");
        assert_eq!(refused.await.expect("an answer").status(), 405);

        let mut other = server.connect();
        other.ask("/other");
        // Some that wait for their turn go away: what they leave behind must wake the others.
        let reset = answers.split_off(25);
        drop(reset);
        assert!(calls.is_empty(), "more than one handler");
        gate.open();
        let other = tokio::task::spawn_blocking(move || other.answer());
        let other = other.await.expect("an answer");
        assert_eq!((other.status, other.text()), (200, "/other"));
        for (i, answer) in answers.into_iter().enumerate() {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 200, "stream {i}");
            assert_eq!(whole(answer.into_body()).await.expect("the body"), format!("/{i}").into_bytes());
        }
    });
}

#[test]
fn a_stream_that_waits_does_not_hold_up_the_others() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            held.wait();
        }
        echo_path(&req)
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let held = ask(&mut requests, "/hold").await;
        calls.next();
        for _ in 0..10 {
            assert_eq!(get(&mut requests, "/quick").await.0, 200);
        }
        gate.open();
        assert_eq!(held.await.expect("an answer").status(), 200);
    });
}

#[test]
fn a_quick_answer_does_not_wait_for_the_request_after_it() {
    let quick_and_pending = HandlerFn(|exchange: Exchange| {
        if exchange.request.uri().path() == "/pending" {
            let _gone = wait(pending::<()>(), None);
        }
        exchange.responder.send(http::Response::new(Full::new(Bytes::from_static(b"quick"))));
    });
    let server = start_handler(server().seats(1), quick_and_pending);
    let addr = server.addr;
    // On one thread, so that both are written together: the connection does not move before the test waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (mut requests, _connection) = connect(addr).await;
        get(&mut requests, "/settle").await; // the settings are acknowledged, and nothing else is under way
        let mut send = |path| requests.send_request(request("GET", path), true).expect("the request is valid").0;
        let (quick, _held) = (send("/quick"), send("/pending"));
        let quick = tokio::time::timeout(PATIENCE, quick).await.expect("the server answers");
        assert_eq!(quick.expect("an answer").status(), 200);
    });
}

#[test]
fn a_3_mib_body_goes_up_and_down() {
    let server = serve(|mut req: Request, _info| {
        let mut body = Vec::new();
        req.body_mut().reader().read_to_end(&mut body).expect("the client sends all");
        Response::new(Body::new(body))
    });
    let addr = server.addr;
    let body = pattern(3 << 20);
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut requests = requests.ready().await.expect("room for a stream");
        let (answer, mut stream) = requests.send_request(request("POST", "/"), false).expect("valid");
        send_all(&mut stream, Bytes::from(body.clone())).await.expect("the server takes it");
        stream.send_data(Bytes::new(), true).expect("the stream is open");
        let answer = answer.await.expect("an answer");
        assert!(whole(answer.into_body()).await.expect("the whole body") == body);
    });
}

#[test]
fn an_echo_moves_both_ways_at_once() {
    let server = serve(|req: Request, _info| Response::new(req.into_body()));
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut requests = requests.ready().await.expect("room for a stream");
        let (answer, mut stream) = requests.send_request(request("POST", "/"), false).expect("valid");
        let mut body = answer.await.expect("the head comes before the body").into_body();
        for part in ["one", "two", "three"] {
            send_all(&mut stream, Bytes::from(part)).await.expect("the server takes it");
            let data = body.data().await.expect("not the end").expect("data");
            assert_eq!(data, part);
        }
        stream.send_data(Bytes::new(), true).expect("the stream is open");
        assert!(body.data().await.is_none_or(|data| data.is_ok_and(|data| data.is_empty())));
    });
}

#[test]
fn many_echoes_on_one_connection_lose_nothing() {
    let server = start(server().max_workers(64), |req: Request, _info| Response::new(req.into_body()));
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let echoes: Vec<_> = (1..=50)
            .map(|seed: usize| {
                let requests = requests.clone();
                tokio::spawn(async move {
                    for round in 1..=5 {
                        let body = pattern(seed * round * 997 % 200_000);
                        let mut requests = requests.clone().ready().await.expect("room for a stream");
                        let (answer, mut stream) = requests.send_request(request("POST", "/"), false).expect("valid");
                        let sent = Bytes::from(body.clone());
                        let sending = tokio::spawn(async move {
                            send_all(&mut stream, sent).await.expect("the server takes it");
                            stream.send_data(Bytes::new(), true).expect("the stream is open");
                        });
                        let answer = answer.await.expect("an answer");
                        assert!(whole(answer.into_body()).await.expect("the body") == body, "{seed}, round {round}");
                        sending.await.expect("all was sent");
                    }
                })
            })
            .collect();
        for echo in echoes {
            echo.await.expect("every echo came back");
        }
    });
}

#[test]
fn trailers_go_both_ways() {
    let server = serve(|mut req: Request, _info| {
        let mut body = Vec::new();
        req.body_mut().reader().read_to_end(&mut body).expect("the client sends all");
        let trailers = req.body_mut().trailers().expect("the client sent trailers");
        Response::new(Body::new(body).with_trailers(trailers))
    });
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut requests = requests.ready().await.expect("room for a stream");
        let (answer, mut stream) = requests.send_request(request("POST", "/"), false).expect("valid");
        stream.send_data(Bytes::from("hello"), false).expect("the stream is open");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("abc"));
        stream.send_trailers(trailers.clone()).expect("the stream is open");
        let mut body = answer.await.expect("an answer").into_body();
        let data = body.data().await.expect("not the end").expect("data");
        assert_eq!(data, "hello");
        assert_eq!(body.trailers().await.expect("no error"), Some(trailers));
    });
}

#[test]
fn a_reset_stream_interrupts_its_handler_only() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let server = start_handler(
        server(),
        HandlerFn(move |exchange: Exchange| {
            if exchange.request.uri().path() == "/wait" {
                called.send(()).expect("the test listens");
                ended.send(wait(pending::<()>(), None)).expect("the test listens");
            }
            exchange.responder.send(echo_path(&exchange.request));
        }),
    );
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("GET", "/wait"), true).expect("valid");
        calls.next();
        stream.send_reset(Reason::CANCEL);
        assert_eq!(ends.next(), Err(Interrupted::ClientGone));
        drop((answer, stream));
        let mut requests = requests;
        assert_eq!(get(&mut requests, "/next").await, (200, b"/next".to_vec()));
    });
}

#[test]
fn a_connection_that_goes_away_interrupts_all_its_handlers() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let server = start_handler(
        server().max_workers(32),
        HandlerFn(move |_exchange: Exchange| {
            called.send(()).expect("the test listens");
            ended.send(wait(pending::<()>(), None)).expect("the test listens");
        }),
    );
    let addr = server.addr;
    run(async {
        let (mut requests, connection) = connect(addr).await;
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(ask(&mut requests, "/").await);
        }
        for _ in 0..10 {
            calls.next();
        }
        connection.abort();
        drop((requests, answers));
        for _ in 0..10 {
            assert_eq!(ends.next(), Err(Interrupted::ClientGone));
        }
    });
}

#[test]
fn a_reset_in_the_middle_of_a_body_is_an_error_to_the_handler() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let server = serve(move |mut req: Request, _info| {
        called.send(()).expect("the test listens");
        let result = req.body_mut().reader().read_to_end(&mut Vec::new());
        ended.send(result.is_err()).expect("the test listens");
        Response::new(Body::empty())
    });
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut requests = requests.ready().await.expect("room for a stream");
        let (_answer, mut stream) = requests.send_request(request("POST", "/"), false).expect("valid");
        stream.send_data(Bytes::from("only a part"), false).expect("the stream is open");
        calls.next();
        stream.send_reset(Reason::CANCEL);
        assert!(ends.next(), "a cut body was taken for a whole one");
    });
}

#[test]
fn a_reset_in_the_middle_of_an_answer_stops_its_stream() {
    let (ended, ends) = signals();
    let server = serve(move |_req, _info| {
        let ended = ended.clone();
        Response::new(Body::stream(move |writer| {
            while writer.write_all(&[b'x'; 16 << 10]).is_ok() {}
            ended.send(()).expect("the test listens");
            Ok(())
        }))
    });
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut ready = requests.ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("GET", "/"), true).expect("valid");
        let mut body = answer.await.expect("an answer").into_body();
        body.data().await.expect("not the end").expect("data");
        stream.send_reset(Reason::CANCEL);
        drop((body, stream));
        ends.next();
    });
}

#[test]
fn a_handler_is_told_what_became_of_its_answer() {
    let (told, tells) = signals();
    let server = start_handler(
        server(),
        HandlerFn(move |exchange: Exchange| {
            let told = told.clone();
            // More than the 64 KiB that a client takes of a stream before it has read some.
            let length = if exchange.request.uri().path() == "/long" { 1 << 20 } else { 5 };
            let body =
                (0..length).step_by(5).map(|_| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"bytes"))));
            let told = move |sent| told.send(sent).expect("the test listens");
            exchange.responder.send_and_tell(http::Response::new(Frames(body)), told);
        }),
    );
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        assert_eq!(get(&mut requests.clone(), "/short").await, (200, b"bytes".to_vec()));
        assert_eq!(tells.next(), Ok(5));
        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("GET", "/long"), true).expect("valid");
        let mut body = answer.await.expect("an answer").into_body();
        body.data().await.expect("not the end").expect("data");
        stream.send_reset(Reason::CANCEL);
        let sent = tells.next().expect_err("the client has left");
        assert!((5..1 << 20).contains(&sent.bytes) && sent.why == Gone::Left, "{sent:?}");
    });
}

#[test]
fn what_has_gone_out_is_what_the_client_had_a_window_for() {
    let (told, tells) = signals();
    let server = start_handler(
        server().write_timeout(Duration::from_millis(100)),
        HandlerFn(move |exchange: Exchange| {
            let told = told.clone();
            let told = move |sent| told.send(sent).expect("the test listens");
            let body = Full::new(Bytes::from_static(b"0123456789"));
            exchange.responder.send_and_tell(http::Response::new(body), told);
        }),
    );
    // Whether or not the end was sent with the rest, which it is only within the window that streams begin with.
    for window in [3, 10] {
        let mut client = support::Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, window)]);
        let left = 10 - window;
        if left > 0 {
            client.send(frames::get(1, "/"));
            assert_eq!(client.frame_of(DATA, 1).payload.len(), 3);
            client.send(rst_stream(1, 8));
            assert_eq!(tells.next().map_err(|cut| (cut.bytes, cut.why)), Err((3, Gone::Left)), "reset by the client");
            client.send(frames::get(3, "/"));
            assert_eq!(client.frame_of(DATA, 3).payload.len(), 3);
            client.frame_of(RST_STREAM, 3);
            assert_eq!(
                tells.next().map_err(|cut| (cut.bytes, cut.why)),
                Err((3, Gone::TooSlow)),
                "reset after the time-out"
            );
        }
        client.send([frames::get(5, "/"), window_update(5, left + 1)].concat());
        assert_eq!(client.status_of(5), 200);
        assert_eq!(tells.next(), Ok(10));
    }
}

#[test]
fn an_answer_goes_on_after_goodbye_for_as_long_as_the_client_takes_it() {
    let server = start(server().max_requests_per_connection(1), |req: Request, _info| {
        Response::new(Body::new(vec![b'x'; if req.uri().path() == "/long" { 40_000 } else { 1 }]))
    });
    let connect = || support::Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1000)]);
    let mut slow = connect();
    slow.send(frames::get(1, "/long"));
    let (mut taken, mut is_told) = (0, false);
    while taken == 0 || !is_told {
        let frame = slow.frame().expect("the connection stays");
        is_told |= frame.is(GOAWAY, 0);
        taken += if frame.is(DATA, 1) { frame.payload.len() } else { 0 };
    }
    slow.send(window_update(1, 1000));
    taken += slow.frame_of(DATA, 1).payload.len();
    // Another that is told to end, later, and has nothing open: the server ends it after a while.
    let mut quick = connect();
    quick.send(frames::get(1, "/"));
    assert_eq!(quick.status_of(1), 200);
    quick.goodbye();
    slow.send(window_update(1, 40_000));
    while taken < 40_000 {
        taken += slow.frame_of(DATA, 1).payload.len();
    }
}

/// A body of frames that are there, and whose number nobody knows.
struct Frames<I>(I);

impl<I: Iterator<Item = std::io::Result<Frame<Bytes>>> + Unpin> http_body::Body for Frames<I> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }
}

#[test]
fn a_panic_is_500_and_after_the_head_a_reset() {
    let server = serve(|req: Request, _info| {
        if req.uri().path() == "/before" {
            panic!("this panic belongs to the test");
        }
        Response::new(Body::stream(|writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            panic!("this panic belongs to the test");
        }))
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        assert_eq!(get(&mut requests, "/before").await.0, 500);
        let answer = ask(&mut requests, "/after").await.await.expect("the head was sent");
        let error = whole(answer.into_body()).await.expect_err("END_STREAM would call a truncated answer complete");
        assert!(error.is_reset(), "{error}");
        // The connection survives both.
        assert_eq!(get(&mut requests, "/before").await.0, 500);
    });
}

#[test]
fn a_stream_is_sent_as_it_is_flushed() {
    let (permit, permits) = std::sync::mpsc::channel::<String>();
    let permits = std::sync::Mutex::new(Some(permits));
    let server = serve(move |_req, _info| {
        let events = permits.lock().expect("one request").take().expect("one request");
        Response::new(Body::stream(move |writer| {
            for event in events {
                writer.write_all(event.as_bytes())?;
                writer.flush()?;
            }
            Ok(())
        }))
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        permit.send("first".to_owned()).expect("the handler is called");
        let mut body = ask(&mut requests, "/").await.await.expect("an answer").into_body();
        assert_eq!(body.data().await.expect("not the end").expect("data"), "first");
        for i in 0..20 {
            permit.send(i.to_string()).expect("the stream goes on");
            assert_eq!(body.data().await.expect("not the end").expect("data"), i.to_string());
        }
        drop(permit);
        assert!(body.data().await.is_none_or(|data| data.is_ok_and(|data| data.is_empty())));
    });
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let server = start(server().max_body(1000), |mut req: Request, _info| {
        let result = req.body_mut().reader().read_to_end(&mut Vec::new());
        let status = if result.is_ok() { 200 } else { 400 };
        ResponseBuilder::new().status(status).body(Body::empty()).expect("valid")
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let mut declared = request("POST", "/");
        declared.headers_mut().insert("content-length", HeaderValue::from_static("1001"));
        let (answer, stream) = ready.send_request(declared, false).expect("valid");
        assert_eq!(answer.await.expect("an answer").status(), 413);
        drop(stream);

        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("POST", "/"), false).expect("valid");
        stream.send_data(Bytes::from(pattern(2000)), false).expect("the stream is open");
        assert_eq!(answer.await.expect("an answer").status(), 413);
        drop(stream);
        assert_eq!(get(&mut requests, "/").await.0, 200);
    });
}

#[test]
fn who_is_answered_early_may_send_its_body_to_the_end() {
    let server = start(server().max_body(1000), |_req, _info| Response::new(Body::new("handled")));
    let addr = server.addr;
    let body = pattern(3 << 20);
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        // Refused for its length, and not read by its handler.
        for (declared, status) in [(Some(body.len()), 413), (None, 200)] {
            let mut ready = requests.clone().ready().await.expect("room for a stream");
            let mut post = request("POST", "/");
            if let Some(length) = declared {
                post.headers_mut().insert("content-length", HeaderValue::from(length));
            }
            let (answer, mut stream) = ready.send_request(post, false).expect("valid");
            assert_eq!(answer.await.expect("an answer").status(), status);
            for piece in body.chunks(10_000) {
                stream.reserve_capacity(piece.len());
                while stream.capacity() < piece.len() {
                    let more = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                    more.expect("the stream is open").expect("it was not reset");
                }
                stream.send_data(Bytes::copy_from_slice(piece), false).expect("the stream is open");
            }
            stream.send_data(Bytes::new(), true).expect("the stream is open");
        }
        assert_eq!(get(&mut requests, "/").await.0, 200);
    });
}

#[test]
fn trace_and_connect_are_405_with_allow() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let trace = request("TRACE", "/");
        let connect = http::Request::builder().method("CONNECT").uri("test:80").body(()).expect("valid");
        for request in [trace, connect] {
            let mut ready = requests.clone().ready().await.expect("room for a stream");
            let (answer, _stream) = ready.send_request(request, true).expect("valid");
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status(), 405);
            assert!(answer.headers().contains_key("allow"));
        }
        assert_eq!(get(&mut requests, "/").await.0, 200);
    });
}

#[test]
fn an_answer_to_head_has_no_body() {
    let server = serve(|_req, _info| Response::new(Body::new("Hello World!")));
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut ready = requests.ready().await.expect("room for a stream");
        let (answer, _stream) = ready.send_request(request("HEAD", "/"), true).expect("valid");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["content-length"], "12");
        assert_eq!(whole(answer.into_body()).await.expect("no error"), b"");
    });
}

#[test]
fn answers_204_205_and_304_have_no_body() {
    let server = serve(|req: Request, _info| {
        let status = req.uri().path()[1..].parse::<u16>().expect("the path is a status");
        ResponseBuilder::new().status(status).body(Body::new("not to be seen")).expect("valid")
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        for status in [204, 205, 304] {
            assert_eq!(get(&mut requests, &format!("/{status}")).await, (status, Vec::new()));
        }
        assert_eq!(get(&mut requests, "/200").await.1, b"not to be seen");
    });
}

#[test]
fn shutdown_finishes_the_streams_of_a_connection() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        echo_path(&req)
    });
    let addr = server.addr;
    let handle = server.into_handle();
    run(async {
        let (mut requests, connection) = connect(addr).await;
        let answer = ask(&mut requests, "/last").await;
        calls.next();
        let stopping = std::thread::spawn(move || handle.shutdown(PATIENCE));
        support::until("new connections are refused", || support::Client::try_connect(addr).is_err());
        gate.open();
        let answer = answer.await.expect("an answer");
        assert_eq!(whole(answer.into_body()).await.expect("the body"), b"/last");
        drop(requests);
        assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
        // The server says GOAWAY and closes.
        let _ = connection.await.expect("the connection ends");
    });
}

#[test]
fn an_idle_connection_is_closed_by_shutdown() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let addr = server.addr;
    let handle = server.into_handle();
    run(async {
        let (mut requests, connection) = connect(addr).await;
        assert_eq!(get(&mut requests, "/").await.0, 200);
        let stopping = std::thread::spawn(move || handle.shutdown(PATIENCE));
        let _ = connection.await.expect("the connection ends");
        assert!(stopping.join().expect("shutdown returns").is_none());
        drop(requests);
    });
}

#[test]
fn a_client_that_answers_no_ping_is_dropped() {
    let server = server()
        .http2_keep_alive_interval(Duration::from_millis(20))
        .http2_keep_alive_timeout(Duration::from_millis(20));
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let server = start_handler(
        server,
        HandlerFn(move |_exchange: Exchange| {
            called.send(()).expect("the test listens");
            ended.send(wait(pending::<()>(), None)).expect("the test listens");
        }),
    );
    let mut client = server.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
    // HEADERS, END_STREAM and END_HEADERS, stream 1: GET, http, / (static table), authority `test`.
    client.send([0, 0, 9, 1, 0x5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x01, 4, b't', b'e', b's', b't']);
    calls.next();
    client.until_closed();
    assert_eq!(ends.next(), Err(Interrupted::ClientGone));
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_timeout() {
    let server = start(server().idle_timeout(Duration::from_millis(50)), |req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (mut requests, connection) = connect(addr).await;
        assert_eq!(get(&mut requests, "/").await.0, 200);
        let _ = connection.await.expect("the connection ends");
        drop(requests);
    });
}

#[test]
fn a_connection_that_has_had_all_its_requests_says_goodbye_and_finishes_them() {
    let server = start(server().max_requests_per_connection(3), |req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (mut requests, connection) = connect(addr).await;
        for path in ["/1", "/2", "/3"] {
            assert_eq!(get(&mut requests, path).await, (200, path.as_bytes().to_vec()));
        }
        connection.await.expect("it ends").expect("without an error");
    });
}

#[test]
fn a_connection_that_is_too_old_answers_what_it_is_asked_and_says_goodbye() {
    let server = start(server().max_connection_age(Duration::from_millis(50)), |req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (requests, connection) = connect(addr).await;
        tokio::time::sleep(Duration::from_millis(100)).await; // it grows old
        // On a slow machine it may have been old, and have said so, before it had moved at all.
        if let Ok(mut ready) = requests.ready().await
            && let Ok((answer, _)) = ready.send_request(request("GET", "/old"), true)
        {
            let answer = answer.await.expect("an answer");
            assert_eq!(whole(answer.into_body()).await.expect("no error"), b"/old");
        }
        connection.await.expect("it ends").expect("without an error");
    });
}

#[test]
fn a_stream_whose_body_trickles_is_408_and_the_others_go_on() {
    let server = start(server().body_rate(1_000_000, Duration::from_millis(100)), |mut req: Request, _info| {
        let _ = req.body_mut().reader().read_to_end(&mut Vec::new());
        echo_path(&req)
    });
    let addr = server.addr;
    run(async {
        let (mut requests, _connection) = connect(addr).await;
        let mut ready = requests.clone().ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("POST", "/"), false).expect("valid");
        let trickling = tokio::spawn(async move {
            while stream.send_data(Bytes::from("x"), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await; // the trickle is what is tested
            }
        });
        assert_eq!(answer.await.expect("an answer").status(), 408);
        trickling.abort();
        assert_eq!(get(&mut requests, "/").await.0, 200);
    });
}

#[test]
fn too_many_fields_are_431_and_a_cookie_in_pieces_is_one() {
    let server = serve(|req: Request, _info| echo_path(&req));
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let with = |fields: usize, cookies: usize| {
            let mut request = request("GET", "/");
            for i in 0..fields {
                let name: http::HeaderName = format!("x-{i}").parse().expect("a name");
                request.headers_mut().insert(name, HeaderValue::from_static("1"));
            }
            for _ in 0..cookies {
                request.headers_mut().append("cookie", HeaderValue::from_static("a=b"));
            }
            let requests = requests.clone();
            async move {
                let mut ready = requests.ready().await.expect("room for a stream");
                let (answer, _stream) = ready.send_request(request, true).expect("valid");
                answer.await.expect("an answer").status().as_u16()
            }
        };
        assert_eq!(with(100, 0).await, 200);
        assert_eq!(with(101, 0).await, 431);
        assert_eq!(with(50, 150).await, 200);
        assert_eq!(with(100, 1).await, 431);
    });
}

#[test]
fn streams_with_unfinished_bodies_hold_half_of_the_workers_and_one_that_ends_passes() {
    let (called, calls) = signals();
    let server = start(server().max_workers(4).seats(4), move |req: Request, _info| {
        called.send(req.uri().path().to_owned()).expect("the test listens");
        Response::new(req.into_body())
    });
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let begin = |path: &'static str| {
            let requests = requests.clone();
            async move {
                let mut ready = requests.ready().await.expect("room for a stream");
                let (answer, mut stream) = ready.send_request(request("POST", path), false).expect("valid");
                stream.send_data(Bytes::from("hello"), false).expect("the stream is open");
                (answer, stream)
            }
        };
        let (_first, mut to_first) = begin("/first").await;
        let (_second, _to_second) = begin("/second").await;
        let mut started = [calls.next(), calls.next()];
        started.sort();
        assert_eq!(started, ["/first", "/second"]);
        let (third, mut to_third) = begin("/third").await;
        let (_fourth, _to_fourth) = begin("/fourth").await;
        tokio::task::yield_now().await;
        to_third.send_data(Bytes::from("world"), true).expect("the stream is open");
        assert_eq!(whole(third.await.expect("an answer").into_body()).await.expect("no error"), b"helloworld");
        assert_eq!(calls.next(), "/third");
        to_first.send_data(Bytes::new(), true).expect("the stream is open");
        assert_eq!(calls.next(), "/fourth");
    });
}

#[test]
fn trailers_without_a_field_end_a_body_as_others_do() {
    let server = serve(|req: Request, _info| Response::new(req.into_body()));
    let addr = server.addr;
    run(async {
        let (requests, _connection) = connect(addr).await;
        let mut ready = requests.ready().await.expect("room for a stream");
        let (answer, mut stream) = ready.send_request(request("POST", "/"), false).expect("valid");
        stream.send_data(Bytes::from("hello"), false).expect("the stream is open");
        stream.send_trailers(HeaderMap::new()).expect("the stream is open");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(whole(answer.into_body()).await.expect("no error"), b"hello");
    });
}
