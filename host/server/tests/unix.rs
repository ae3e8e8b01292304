//! Unix stream sockets, next to TCP: all that a connection does there, it does here. What is written for both is tested in depth
//! over TCP; these tests are about what the kernel does differently.

mod support;

use std::future::pending;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Exchange, Interrupted, Request, Response, Server, wait};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use support::{Client, Gate, HandlerFn, PATIENCE, endless, pattern, server, signals, start, start_handler, until};

/// A path for a socket, which is gone after the test.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("astra-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn connect(&self) -> Client<UnixStream> {
        Client::connect_unix(&self.0)
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Nothing was bound to it, perhaps.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server with default settings on a Unix socket, and on TCP.
fn server_at(path: &SocketPath) -> Server {
    server().and_bind_unix(path).expect("the path is free")
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn echo_path(request: Request, _info: ConnectionInfo) -> Response {
    Response::new(Body::new(request.uri().path().to_owned()))
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let path = SocketPath::new();
    let _server = start(server_at(&path), echo_path);
    let mut client = path.connect();
    for i in 0..100 {
        let path = format!("/{i}");
        assert_eq!(client.get(&path).text(), path);
    }
}

#[test]
fn one_server_listens_on_both_kinds_and_only_tcp_has_addresses() {
    let path = SocketPath::new();
    let server = start(server_at(&path), |_req, info: ConnectionInfo| {
        let has = [info.peer_addr(), info.local_addr()].map(|addr| addr.is_some());
        Response::new(Body::new(format!("{has:?}")))
    });
    assert_eq!(server.connect().get("/").text(), "[true, true]");
    assert_eq!(path.connect().get("/").text(), "[false, false]");
    assert_eq!(server.into_handle().local_addrs().len(), 1);
}

#[test]
fn a_server_needs_no_tcp_and_takes_a_socket_that_is_bound() {
    let (path, second) = (SocketPath::new(), SocketPath::new());
    let listener = UnixListener::bind(&second).expect("the path is free");
    let server = Server::try_bind_unix(&path).expect("the path is free");
    let server = server.and_listen_unix(listener).expect("a listener");
    assert!(server.local_addr().is_err());
    let handle = server.start_service(echo_path).expect("the server starts");
    assert_eq!(handle.local_addrs(), []);
    for path in [&path, &second] {
        assert_eq!(path.connect().get("/served").text(), "/served");
    }
    assert!(handle.shutdown(PATIENCE).is_none());
}

#[test]
fn a_path_left_behind_is_an_error() {
    let path = SocketPath::new();
    drop(UnixListener::bind(&path).expect("the path is free"));
    for error in [Server::try_bind_unix(&path).err(), server().and_bind_unix(&path).err()] {
        assert_eq!(error.expect("the path is taken").kind(), std::io::ErrorKind::AddrInUse);
    }
}

#[test]
fn a_1_mib_body_goes_up_and_down() {
    let path = SocketPath::new();
    let _server = start(server_at(&path), |mut req: Request, _info| {
        let mut body = Vec::new();
        req.body_mut().reader().read_to_end(&mut body).expect("a whole body");
        Response::new(Body::new(body))
    });
    let body = pattern(1 << 20);
    let mut client = path.connect();
    for _ in 0..3 {
        let answer = client.post("/", &body);
        assert!(answer.body == body, "{} bytes came back, or others", answer.body.len());
    }
}

#[test]
fn http_2_is_spoken_too() {
    let path = SocketPath::new();
    let _server = start(server_at(&path), |req: Request, _info| {
        Response::new(Body::new(format!("{:?} {}", req.version(), req.uri().path())))
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let get = async {
        let stream = tokio::net::UnixStream::connect(&path).await.expect("the server accepts");
        let (mut requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::get("http://test/two").body(()).expect("a valid request");
        let (response, _) = requests.send_request(request, true).expect("the request is valid");
        let mut body = response.await.expect("an answer").into_body();
        body.data().await.expect("a body").expect("the whole body")
    };
    let body = runtime.block_on(async { tokio::time::timeout(PATIENCE, get).await.expect("the server answers") });
    assert_eq!(body, "HTTP/2.0 /two");
}

#[test]
fn a_client_that_goes_away_interrupts_its_handler() {
    let path = SocketPath::new();
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let handler = HandlerFn(move |_exchange: Exchange| {
        called.send(()).expect("the test listens");
        ended.send(wait(pending::<()>(), None)).expect("the test listens");
    });
    let _server = start_handler(server_at(&path), handler);
    let mut client = path.connect();
    client.ask("/");
    calls.next();
    // No reset is needed: a Unix socket tells the end of both directions from the end of one.
    drop(client);
    assert_eq!(ends.next(), Err(Interrupted::ClientGone));
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_its_answer() {
    let path = SocketPath::new();
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let _server = start(server_at(&path), move |_req, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        Response::new(Body::new("still here"))
    });
    let mut client = path.connect();
    client.ask("/");
    client.stream().shutdown(Shutdown::Write).expect("connected");
    calls.next();
    gate.open();
    assert_eq!(client.answer().text(), "still here");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn shutdown_finishes_a_running_request_and_then_closes_idle_connections() {
    let path = SocketPath::new();
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server_at(&path), move |req: Request, info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            held.wait();
        }
        echo_path(req, info)
    });
    let mut idle = path.connect();
    assert_eq!(idle.get("/idle").text(), "/idle");
    let mut silent = path.connect();
    let mut reused = path.connect();
    let mut busy = path.connect();
    busy.ask("/hold");
    calls.next();

    let handle = server.into_handle();
    let stopping = std::thread::spawn(move || handle.shutdown(PATIENCE));
    until("new connections are refused", || UnixStream::connect(&path).is_err());
    let last = reused.get("/reused");
    assert_eq!((last.text(), last.header("connection")), ("/reused", Some("close")));
    assert_eq!(reused.until_closed(), b"");

    gate.open();
    assert_eq!(busy.answer().text(), "/hold");
    assert_eq!(busy.until_closed(), b"");
    assert_eq!(idle.until_closed(), b"");
    assert_eq!(silent.until_closed(), b"");
    // Else the server would linger.
    drop((idle, silent, busy));
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn at_the_connection_limit_clients_of_both_kinds_wait_until_one_leaves() {
    let path = SocketPath::new();
    let server = start(server_at(&path).max_connections(1), echo_path);
    let mut first = path.connect();
    assert_eq!(first.get("/first").text(), "/first");
    let mut second = server.connect();
    second.ask("/second");
    for _ in 0..100 {
        assert_eq!(first.get("/again").text(), "/again");
    }
    second.stream().set_nonblocking(true).expect("connected");
    assert!(second.stream().peek(&mut [0]).is_err(), "nothing has come");
    second.stream().set_nonblocking(false).expect("connected");
    drop(first);
    assert_eq!(second.answer().text(), "/second");
    let mut third = path.connect();
    third.ask("/third");
    drop(second);
    assert_eq!(third.answer().text(), "/third");
}

#[test]
fn half_a_head_is_408_and_an_idle_connection_is_closed_in_silence() {
    let path = SocketPath::new();
    let timeout = Duration::from_millis(50);
    let _server = start(server_at(&path).header_read_timeout(timeout).idle_timeout(timeout), echo_path);
    let mut client = path.connect();
    client.send("GET / HTTP/1.1\r\nhost: te");
    assert_eq!(client.answer().status, 408);
    assert_eq!(client.until_closed(), b"");
    let mut client = path.connect();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_client_that_never_reads_is_dropped_after_the_write_timeout() {
    let path = SocketPath::new();
    let (ended, ends) = signals();
    let _server = start(server_at(&path).write_timeout(Duration::from_millis(50)), endless(ended));
    let mut client = path.connect();
    client.ask("/");
    ends.next();
}

#[test]
fn a_413_reaches_a_client_that_sends_on() {
    let path = SocketPath::new();
    let _server = start(server_at(&path).max_body(1000), echo_path);
    let mut client = path.connect();
    // More than a socket holds at once: the server reads on after its answer.
    assert_eq!(client.post("/", &pattern(250 << 10)).status, 413);
    client.stream().shutdown(Shutdown::Write).expect("connected");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn an_answer_of_http_1_0_that_is_cut_ends_at_once() {
    let path = SocketPath::new();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server_at(&path), move |_req, _info| {
        let held = held.clone();
        Response::new(Body::stream(move |writer| {
            writer.write_all(b"hello")?;
            writer.flush()?;
            held.wait();
            Ok(())
        }))
    });
    let mut client = path.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.exactly(5).expect("what was flushed"), b"hello");
    let handle = server.into_handle();
    let stopping = std::thread::spawn(move || handle.shutdown(Duration::ZERO));
    // There is no reset to wait for, and the handler goes on for longer than this client waits.
    client.stream().set_read_timeout(Some(PATIENCE / 2)).expect("not zero");
    assert_eq!(client.rest().expect("an end"), b"");
    gate.open();
    assert!(stopping.join().expect("shutdown returns").is_some(), "the answer was cut");
}

#[test]
fn what_comes_after_a_file_descriptor_is_read() {
    let path = SocketPath::new();
    let server = server_at(&path);
    let mut client = path.connect();
    // A read ends after the bytes that came with the descriptor, whatever else is there: all of this, before the server starts.
    send_with_descriptor(client.stream(), b"GET /next HTTP/1.1\r\n");
    client.send("host: test\r\n\r\n");
    let _server = start(server, echo_path);
    assert_eq!(client.answer().text(), "/next");
}

fn send_with_descriptor(stream: &UnixStream, bytes: &[u8]) {
    let descriptors = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one");
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent.expect("connected"), bytes.len());
}
