//! Clients of HTTP/2 that send more than anybody needs, or read less: each is cut or held back, and others are served as ever.

mod support;

use std::future::pending;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use astra_server::{Body, Request, Response, Server, blocking, wait};
use support::client::is_end;
use support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE,
    NO_ERROR, PING, PRIORITY, RST_STREAM, UNKNOWN, data, fields, flood, frame, get, ping, post, request_fields,
    rst_stream, settings, window_update,
};
use support::{Client, Gate, PATIENCE, Running, server, start, until};

/// Counts the handlers that were started and those that are at it.
#[derive(Clone, Default)]
struct Handlers {
    started: Arc<AtomicUsize>,
    active: Arc<AtomicUsize>,
}

impl Handlers {
    /// Answers at once; `/read` once it has read the body; `/hold` when the client is gone.
    fn serve(&self, server: Server) -> Running {
        let Handlers { started, active } = self.clone();
        start(server, move |mut req: Request, _info| {
            started.fetch_add(1, Ordering::SeqCst);
            active.fetch_add(1, Ordering::SeqCst);
            match req.uri().path() {
                "/hold" => drop(wait(pending::<()>(), None)),
                "/read" => drop(req.body_mut().reader().read_to_end(&mut Vec::new())),
                _ => {}
            }
            active.fetch_sub(1, Ordering::SeqCst);
            Response::new(Body::new("hello"))
        })
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }

    fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    /// Others are served, nothing of what was before is still at it, and nothing has to be cut.
    fn check(&self, server: Running) {
        assert_eq!(server.connect().get("/").text(), "hello");
        let mut client = Client::connect_http2(server.addr);
        client.send(get(1, "/"));
        assert_eq!(client.status_of(1), 200);
        drop(client);
        until("no handler is left", || self.active() == 0);
        assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
    }
}

/// The request of a number, on a stream of its own.
fn nth(number: u32) -> u32 {
    2 * number + 1
}

#[test]
fn control_frames_in_masses_end_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    let floods = [
        ("PING", ping(b"12345678")),
        ("PING that answers", frame(PING, ACK, 0, b"12345678")),
        ("SETTINGS", settings(&[])),
        ("SETTINGS with a window", settings(&[(INITIAL_WINDOW_SIZE, 65_535)])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", window_update(0, 1)),
        ("WINDOW_UPDATE of a stream", window_update(1, 1)),
        ("RST_STREAM of a stream that is closed", rst_stream(1, NO_ERROR)),
        ("unknown frames", frame(UNKNOWN, 0, 0, b"")),
    ];
    for (name, frame) in floods {
        let mut client = Client::connect_http2(server.addr);
        client.send(get(1, "/"));
        assert_eq!(client.status_of(1), 200);
        flood(&client, move |_| frame.clone(), 200_000);
        let goaway = client.frame_of(GOAWAY, 0);
        assert_eq!((name, goaway.code()), (name, ENHANCE_YOUR_CALM));
        assert_eq!(goaway.payload[..4], [0, 0, 0, 1], "{name}: the last stream that was served");
        assert_eq!(client.goodbye(), None, "{name}");
    }
    handlers.check(server);
}

#[test]
fn how_many_control_frames_there_may_be_can_be_set() {
    let handlers = Handlers::default();
    let server = handlers.serve(server().http2_max_control_frames(u32::MAX));
    let mut client = Client::connect_http2(server.addr);
    flood(&client, |_| ping(b"12345678"), 50_000);
    for _ in 0..50_000 {
        client.frame_of(PING, 0);
    }
    drop(client);
    handlers.check(server);
}

#[test]
fn a_client_may_update_its_windows_for_each_frame_that_it_gets() {
    let body = 64 << 20;
    let server = start(server().http2_max_control_frames(100), move |_req: Request, _info| {
        Response::new(Body::new(vec![b'x'; body]))
    });
    let mut client = Client::connect_http2(server.addr);
    client.send(get(1, "/"));
    let mut left = body;
    while left > 0 {
        let length = client.frame_of(DATA, 1).payload.len();
        left -= length;
        if length > 0 {
            client.send([window_update(0, length as u32), window_update(1, length as u32)].concat());
        }
    }
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    let mut client = Client::connect_http2(server.addr);
    flood(&client, |number| [get(nth(number), "/hold"), rst_stream(nth(number), NO_ERROR)].concat(), 100_000);
    assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM));
    assert!(handlers.started() < 1000, "{} handlers were started", handlers.started());
    handlers.check(server);
}

#[test]
fn requests_that_are_reset_once_they_run_end_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server().http2_max_control_frames(100));
    let mut client = Client::connect_http2(server.addr);
    let mut started = 0;
    let ended = std::iter::repeat_with(|| {
        // What is sent after the end is lost.
        let _ = client.try_send([get(nth(started), "/hold"), ping(b"taken?!?")].concat());
        let mut frames = std::iter::from_fn(|| client.frame());
        let said = frames.find(|frame| frame.is(PING, 0) || frame.is(GOAWAY, 0)).expect("an answer, or GOAWAY");
        if said.is(PING, 0) {
            started += 1;
            until("the handler runs", || handlers.started() == started as usize);
            let _ = client.try_send(rst_stream(nth(started - 1), NO_ERROR));
        }
        said
    });
    let goaway = ended.take(10_000).find(|frame| frame.is(GOAWAY, 0)).expect("GOAWAY");
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    assert_eq!(client.goodbye(), None);
    drop(client);
    handlers.check(server);
}

#[test]
fn handlers_that_ignore_resets_are_as_many_as_there_are_workers() {
    let started = Arc::new(AtomicUsize::new(0));
    let gate = Gate::default();
    let (count, held) = (started.clone(), gate.clone());
    let server = server().max_workers(3).http2_max_control_frames(u32::MAX);
    let server = start(server, move |_req: Request, _info| {
        count.fetch_add(1, Ordering::SeqCst);
        blocking(|| held.wait());
        Response::new(Body::new("hello"))
    });
    let mut client = Client::connect_http2(server.addr);
    for number in 0..100 {
        client.send([get(nth(number), "/"), ping(b"taken?!?")].concat());
        client.frame_of(PING, 0);
        until("all workers are taken", || started.load(Ordering::SeqCst) == 3.min(number as usize + 1));
        client.send(rst_stream(nth(number), NO_ERROR));
    }
    gate.open();
    client.send(get(nth(100), "/"));
    assert_eq!(client.status_of(nth(100)), 200);
    // What was reset in the queue is not started, but for the last ones, perhaps.
    let started = started.load(Ordering::SeqCst);
    assert!(started < 20, "{started} of a hundred that were reset");
    drop(client);
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
}

#[test]
fn a_frame_that_is_half_written_is_not_interrupted_to_say_goodbye() {
    let server = server().http2_max_control_frames(100);
    let server = start(server, |_req: Request, _info| Response::new(Body::new(vec![b'x'; 32 << 20])));
    for round in 0..32 {
        let mut client = Client::connect_narrow(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]);
        client.send([window_update(0, (1 << 31) - 65_536), get(1, "/")].concat());
        // The server has no room left to write, and gets some again when it has had enough.
        for _ in 0..round * 10 {
            client.frame_of(DATA, 1);
        }
        flood(&client, |_| frame(UNKNOWN, 0, 0, b""), 200_000);
        while client.try_frame().is_ok() {}
        // What there is of the last frame, after its header.
        let rest = client.until_closed();
        assert!(rest.len() < 9 || rest.iter().all(|byte| *byte == b'x'), "a frame within another, in round {round}");
    }
}

#[test]
fn stream_errors_in_masses_end_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server().http2_max_concurrent_streams(10));
    let malformed = |number| frame(HEADERS, END_HEADERS | END_STREAM, nth(number), &fields(&[(":method", "GET")]));
    let refused = |number| get(nth(number), "/hold");
    let closed = |_| data(1, 0, "x");
    for next in [&malformed as &dyn Fn(u32) -> Vec<u8>, &refused, &closed] {
        let bytes: Vec<_> = (1..5000).map(next).collect();
        let mut client = Client::connect_http2(server.addr);
        client.send(get(1, "/"));
        assert_eq!(client.status_of(1), 200);
        flood(&client, move |number| bytes[number as usize].clone(), 4999);
        assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM));
    }
    handlers.check(server);
}

#[test]
fn a_header_block_without_end_ends_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    let field = fields(&[("x", "y".repeat(1000))]);
    for more in [vec![], field[..1].to_vec(), field.repeat(16)] {
        let mut client = Client::connect_http2(server.addr);
        client.send(frame(HEADERS, END_STREAM, 1, &request_fields("GET", "/")));
        flood(&client, move |_| frame(CONTINUATION, 0, 1, &more), 10_000);
        assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM));
    }
    handlers.check(server);
    assert_eq!(handlers.started(), 2, "those of the check");
}

#[test]
fn a_header_list_over_the_limit_is_answered_431() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    let mut client = Client::connect_http2(server.addr);
    let fields = fields(&[("x", "y".repeat(16_000))]);
    client.send(frame(HEADERS, END_STREAM, 1, &request_fields("GET", "/")));
    for _ in 0..4 {
        client.send(frame(CONTINUATION, 0, 1, &fields));
    }
    client.send(frame(CONTINUATION, END_HEADERS, 1, &fields));
    assert_eq!(client.frame_of(HEADERS, 1).status(), 431);
    assert_eq!(handlers.started(), 0);
    client.send(get(3, "/"));
    assert_eq!(client.status_of(3), 200);
    drop(client);
    handlers.check(server);
}

#[test]
fn a_bomb_of_compressed_headers_is_not_unpacked() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    // A field of 4,000 bytes that goes into the table (RFC 7541 section 6.2.1), and an index that is a byte for each of its copies.
    let field = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], &[b'y'; 4000][..]].concat();
    for copies in [80, 10_000] {
        let mut client = Client::connect_http2(server.addr);
        let block = [request_fields("GET", "/"), field.clone(), vec![0x80 | 62; copies]].concat();
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
        assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM));
    }
    // Above the limit, but not by far.
    let mut client = Client::connect_http2(server.addr);
    let block = [request_fields("GET", "/"), field, vec![0x80 | 62; 20]].concat();
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    assert_eq!(client.frame_of(HEADERS, 1).status(), 431);
    drop(client);
    handlers.check(server);
}

#[test]
fn data_that_carries_next_to_nothing_ends_the_connection() {
    let handlers = Handlers::default();
    let server = handlers.serve(server());
    for (path, next) in [("/read", data(1, 0, "")), ("/hold", data(1, 0, "x"))] {
        let mut client = Client::connect_http2(server.addr);
        client.send(post(1, path));
        flood(&client, move |_| next.clone(), 100_000);
        assert_eq!(client.goodbye(), Some(ENHANCE_YOUR_CALM), "{path}");
    }
    handlers.check(server);
}

#[test]
fn a_client_that_never_reads_is_read_no_further() {
    let handlers = Handlers::default();
    // Its limits must not be what stops it.
    let server = handlers.serve(server().http2_max_control_frames(u32::MAX).write_timeout(Duration::from_millis(200)));
    for frames in [ping(b"12345678").repeat(1000), settings(&[]).repeat(1000)] {
        let mut client = Client::connect_narrow(server.addr).start_http2(&[]);
        // What is on the way in both directions is far less than that.
        let sent = (0..64 << 20).step_by(frames.len()).map(|_| client.try_send(&frames)).find_map(Result::err);
        let error = sent.expect("the server stops reading, and then ends the connection");
        assert!(is_end(&error), "{error}");
    }
    handlers.check(server);
}

#[test]
fn header_blocks_that_are_never_ended_hold_no_thread_and_end_with_the_time_for_heads() {
    let handlers = Handlers::default();
    let timeout = Duration::from_millis(100);
    let server = handlers.serve(server().max_workers(2).seats(1).header_read_timeout(timeout));
    let block = frame(HEADERS, END_STREAM, 3, &request_fields("GET", "/"));
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect_http2(server.addr)).collect();
    // That a request is open is no excuse.
    clients[0].send(get(1, "/hold"));
    for pair in clients.chunks_mut(2) {
        pair[0].send(&block);
        pair[1].send(&get(3, "/")[..20]);
    }
    assert_eq!(server.connect().get("/").text(), "hello");
    for mut client in clients {
        assert_eq!(client.goodbye(), None);
    }
    handlers.check(server);
}

#[test]
fn answers_for_which_there_is_no_window_are_reset_after_the_write_timeout() {
    let handlers = Handlers::default();
    let server = handlers.serve(server().write_timeout(Duration::from_millis(100)));
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 0)]);
    // By the server itself, by a handler.
    client.send([frame(HEADERS, END_HEADERS | END_STREAM, 1, &request_fields("TRACE", "/")), get(3, "/")].concat());
    let frames = std::iter::from_fn(|| client.frame());
    let mut reset: Vec<_> = frames.filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).take(2).collect();
    reset.sort_unstable();
    assert_eq!(reset, [1, 3]);
    drop(client);
    handlers.check(server);
}

#[test]
fn answers_whose_window_a_client_holds_back_are_reset_and_the_others_go_on() {
    let (body, small) = (vec![b'x'; 64 << 10], 10);
    let server =
        start(server().write_timeout(Duration::from_millis(100)), move |req: Request, _info| match req.uri().path() {
            "/stream" => {
                let body = body.clone();
                Response::new(Body::stream(move |writer| writer.write_all(&body)))
            }
            "/small" => Response::new(Body::new(vec![b'x'; small])),
            _ => Response::new(Body::new(body.clone())),
        });
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1)]);
    client.send([window_update(0, 1 << 30), get(1, "/"), get(3, "/stream"), get(5, "/small")].concat());
    let (mut taken, mut reset) = ([0; 3], Vec::new());
    while reset.len() < 3 {
        let frame = client.frame().expect("the connection stays");
        match frame.kind {
            DATA => taken[frame.stream as usize / 2] += frame.payload.len(),
            RST_STREAM => reset.push(frame.stream),
            _ => {}
        }
    }
    reset.sort_unstable();
    assert_eq!((taken, &reset[..]), ([1; 3], &[1, 3, 5][..]));
    client.send([get(7, "/small"), window_update(7, 9)].concat());
    assert_eq!(client.status_of(7), 200);
    drop(client);
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
}

#[test]
fn a_client_that_holds_back_the_window_of_its_connection_is_cut() {
    let server = start(server().write_timeout(Duration::from_millis(100)), |_req: Request, _info| {
        Response::new(Body::new(vec![b'x'; 64 << 10]))
    });
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    // h2 has all of the first with its end, and nothing of the second: only the whole connection can be cut.
    client.send(get(1, "/"));
    let taken: usize = std::iter::repeat_with(|| client.frame_of(DATA, 1).payload.len()).take(4).sum();
    assert_eq!(taken, 65_535);
    client.send(get(3, "/"));
    assert_eq!(client.goodbye(), None);
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
}

#[test]
fn answers_that_share_a_window_which_a_client_holds_back_are_reset_and_the_connection_goes_on() {
    let server =
        start(server().write_timeout(Duration::from_millis(100)), |req: Request, _info| match req.uri().path() {
            "/small" => Response::new(Body::new("small")),
            _ => Response::new(Body::new(vec![b'x'; 128 << 10])),
        });
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    client.send([get(1, "/"), get(3, "/")].concat());
    let frames = std::iter::from_fn(|| client.frame());
    let mut reset: Vec<_> = frames.filter(|frame| frame.kind == RST_STREAM).map(|frame| frame.stream).take(2).collect();
    reset.sort_unstable();
    assert_eq!(reset, [1, 3]);
    client.send([window_update(0, 5), get(5, "/small")].concat());
    assert_eq!(client.status_of(5), 200);
    drop(client);
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
}

#[test]
fn answers_after_a_window_was_taken_back_are_cut_with_their_connection() {
    let server = start(server().write_timeout(Duration::from_millis(100)), |_req: Request, _info| {
        Response::new(Body::new(vec![b'x'; 64 << 10]))
    });
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 1 << 20)]);
    // h2 has all of it, with its end, when the window goes away.
    client.send([get(1, "/")].concat());
    client.frame_of(DATA, 1);
    client.send([settings(&[(INITIAL_WINDOW_SIZE, 0)]), window_update(0, 1 << 20)].concat());
    assert_eq!(client.goodbye(), None);
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing is left to cut");
}
