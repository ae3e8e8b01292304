//! Whoever keeps the workers busy keeps nobody out: one seat, and a client that would take all of it.

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll};

use astra_server::{Body, Bytes, Exchange, Response};
use http_body::Frame;
use support::{Client, HandlerFn, server, start, start_handler};

/// A body that has nothing to give and asks to be polled again at once, until it may end: its connection is always queued.
struct Restless(Arc<AtomicBool>);

impl http_body::Body for Restless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.0.load(SeqCst) {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The reactor is not starved by a full queue.
#[test]
fn sockets_are_looked_at_although_the_run_queue_is_never_empty() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let server = start_handler(
        server().seats(1),
        HandlerFn(move |exchange: Exchange| match exchange.request.uri().path() {
            "/restless" => exchange.responder.send(http::Response::new(Restless(Arc::clone(&stopped)))),
            _ => exchange.responder.send(http::Response::new(http_body_util::Full::new(Bytes::from_static(b"served")))),
        }),
    );
    let mut restless: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut restless {
        client.ask("/restless");
        assert_eq!(client.head().status, 200);
    }
    assert_eq!(server.connect().get("/").text(), "served");
    stop.store(true, SeqCst);
    for client in &mut restless {
        assert_eq!(client.chunk().expect("a last chunk"), None);
    }
}

/// Rule 6: hyper reads from a connection for as long as there is something to read; here there always is.
#[test]
fn a_client_that_never_stops_sending_does_not_keep_its_seat() {
    // How many frames it may send is not what is tested.
    let server = server().seats(1).http2_max_control_frames(u32::MAX);
    let server = start(server, |_req, _info| Response::new(Body::new("served")));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut greedy = server.connect();
    greedy.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    greedy.send([0, 0, 0, 4, 0, 0, 0, 0, 0]); // empty SETTINGS
    assert_eq!(greedy.exactly(9).expect("a frame")[3], 4, "the server's SETTINGS");
    let sending = std::thread::spawn(move || {
        // Frames of a type that nobody knows and everybody ignores (RFC 9113 section 4.1): sent faster than read.
        let ignored = [0, 0, 0, 0xfa, 0, 0, 0, 0, 0].repeat(64 << 10);
        while !stopped.load(SeqCst) && greedy.try_send(&ignored).is_ok() {}
    });
    let mut modest = server.connect();
    for _ in 0..20 {
        assert_eq!(modest.get("/").text(), "served");
    }
    assert!(!sending.is_finished(), "the greedy client was refused");
    stop.store(true, SeqCst);
    sending.join().expect("the greedy client stops");
}
