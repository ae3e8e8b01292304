//! The seed's surface: `bind`, `serve`, `serve_clone`, and every option under its old name. Options whose effect a client can see are
//! seen by one here.

mod support;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use astra_server::{Body, ConnectionInfo, Request, Response, Server, Service};
use support::{Client, PATIENCE, server, signals, start};

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn hello(_request: Request, _info: ConnectionInfo) -> Response {
    Response::new(Body::new("Hello World!"))
}

/// Runs `serve` on a thread of its own, which ends with the test's process.
fn in_background(serve: impl FnOnce(Server) -> std::io::Result<()> + Send + 'static) -> Client {
    let (sender, addr) = mpsc::channel();
    std::thread::spawn(move || {
        let server = Server::bind("127.0.0.1:0");
        sender.send(server.local_addr().expect("bound")).expect("the test listens");
        serve(server).expect("serve failed");
    });
    Client::connect(addr.recv_timeout(PATIENCE).expect("the server is bound"))
}

#[test]
fn serve_serves_a_closure() {
    let mut client = in_background(|server| server.serve(|_req, _info| Response::new(Body::new("Hello World!"))));
    assert_eq!(client.get("/").text(), "Hello World!");
}

#[test]
fn serve_serves_an_arc() {
    struct Hello;
    impl Service for Hello {
        fn call(&self, request: Request, info: ConnectionInfo) -> Response {
            hello(request, info)
        }
    }
    let mut client = in_background(|server| server.serve(Arc::new(Hello)));
    assert_eq!(client.get("/").text(), "Hello World!");
}

#[test]
fn serve_clone_serves_a_clone_of_its_service() {
    #[derive(Clone)]
    struct Hello;
    impl Service for Hello {
        fn call(&self, request: Request, info: ConnectionInfo) -> Response {
            hello(request, info)
        }
    }
    let mut client = in_background(|server| server.serve_clone(Hello));
    assert_eq!(client.get("/").text(), "Hello World!");
}

#[test]
#[should_panic(expected = "bind")]
fn bind_panics_when_the_port_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    Server::bind(taken.local_addr().expect("bound"));
}

#[test]
fn a_server_with_every_option_of_the_seed_serves() {
    let server = server()
        .max_workers(16)
        .worker_keep_alive(Duration::from_secs(1))
        .http1_keep_alive(true)
        .http1_half_close(true)
        .http1_max_buf_size(64 << 10)
        .http1_pipeline_flush(true)
        .http1_writev(true)
        .http1_title_case_headers(false)
        .http1_preserve_header_case(false)
        .http2_initial_stream_window_size(1 << 20)
        .http2_enable_connect_protocol()
        .http2_initial_connection_window_size(1 << 20)
        .http2_adaptive_window(false)
        .http2_max_frame_size(32 << 10)
        .http2_max_concurrent_streams(50)
        .http2_max_send_buf_size(64 << 10)
        .http2_keep_alive_interval(Duration::from_secs(60))
        .http2_keep_alive_timeout(Duration::from_secs(20))
        .header_read_timeout(PATIENCE)
        .body_read_timeout(PATIENCE)
        .write_timeout(PATIENCE)
        .idle_timeout(PATIENCE);
    let server = start(server, hello);
    let mut client = server.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "Hello World!");
    }
}

#[test]
fn without_keep_alive_each_answer_closes_its_connection() {
    let server = start(server().http1_keep_alive(false), hello);
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "Hello World!");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn header_names_can_be_written_in_title_case() {
    let server = start(server().http1_title_case_headers(true), hello);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let raw = String::from_utf8_lossy(&client.until_closed()).into_owned();
    assert!(raw.contains("Content-Length: 12"), "{raw}");
}

#[test]
fn a_smaller_buffer_means_a_smaller_head() {
    let server = start(server().http1_max_buf_size(8 << 10), hello);
    let mut client = server.connect();
    let large = "x".repeat(16 << 10);
    client.send(format!("GET / HTTP/1.1\r\nhost: test\r\nlarge: {large}\r\n\r\n"));
    assert_eq!(client.answer().status, 431);
}

#[test]
fn http1_only_refuses_an_http2_preface() {
    let server = start(server().http1_only(), hello);
    let mut client = server.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let raw = client.until_closed();
    assert!(raw.is_empty() || raw.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&raw));
    assert_eq!(server.connect().get("/").text(), "Hello World!");
}

#[test]
fn http2_only_refuses_http_1() {
    let server = start(server().http2_only(), hello);
    let mut client = server.connect();
    client.ask("/");
    let raw = client.until_closed();
    assert!(!raw.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn every_handler_runs_inside_what_is_around_its_worker() {
    thread_local! {
        static AROUND: Cell<bool> = const { Cell::new(false) };
    }
    let (entered, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (enter, leave) = (Arc::clone(&entered), Arc::clone(&left));
    let server = server().around_worker(move |work| {
        enter.fetch_add(1, SeqCst);
        AROUND.set(true);
        work();
        leave.fetch_add(1, SeqCst);
    });
    let server = start(server, |_req, _info| Response::new(Body::new(AROUND.get().to_string())));
    for _ in 0..8 {
        assert_eq!(server.connect().get("/").text(), "true");
    }
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
    assert!(entered.load(SeqCst) > 0);
    assert_eq!(entered.load(SeqCst), left.load(SeqCst));
}

#[test]
fn the_tick_ticks_while_a_request_runs() {
    let (ticked, ticks) = signals();
    let ticks = Mutex::new(ticks);
    let server = server().on_tick(move || {
        // Nobody listens between requests.
        let _ = ticked.send(());
    });
    let server = start(server, move |_req, _info| {
        let ticks = ticks.lock().expect("no handler panics");
        for _ in 0..10 {
            ticks.next();
        }
        Response::new(Body::new("ten ticks"))
    });
    assert_eq!(server.connect().get("/").text(), "ten ticks");
}

#[test]
fn handlers_have_the_stack_they_were_promised() {
    fn deep(levels: usize) -> usize {
        let frame = std::hint::black_box([levels; 128]);
        if levels == 0 { 0 } else { deep(levels - 1) + frame[levels % 128] / levels }
    }
    // 8,000 frames of more than 1 KiB.
    let server =
        start(server().worker_stack(32 << 20), |_req, _info| Response::new(Body::new(deep(8_000).to_string())));
    assert_eq!(server.connect().get("/").text(), "8000");
}
