//! One request, one answer: what a client of HTTP/1.1 sees when everybody behaves, and when a handler panics.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use astra_server::{Body, ConnectionInfo, Request, Response, ResponseBuilder, Server, Service};
use support::{Client, HandlerFn, serve, server, signals, start_handler};

#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn echo_path(request: Request, _info: ConnectionInfo) -> Response {
    Response::new(Body::new(request.uri().path().to_owned()))
}

#[test]
fn a_closure_answers_hello_world() {
    let server = serve(|_req, _info| Response::new(Body::new("Hello World!")));
    let answer = server.connect().get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-length"), Some("12"));
    assert!(answer.header("date").is_some(), "RFC 9110 6.6.1: an origin server with a clock sends Date");
    assert_eq!(answer.text(), "Hello World!");
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = serve(echo_path);
    let mut client = server.connect();
    for i in 0..100 {
        let path = format!("/{i}");
        assert_eq!(client.get(&path).text(), path);
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = serve(echo_path);
    let mut client = server.connect();
    let requests: String = (0..50).map(|i| format!("GET /{i} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(requests);
    for i in 0..50 {
        assert_eq!(client.answer().text(), format!("/{i}"));
    }
}

#[test]
fn pipelined_requests_with_bodies_do_not_run_into_each_other() {
    let server = serve(|req: Request, _info| {
        // The body is not read: the next request starts behind it all the same.
        Response::new(Body::new(req.uri().path().to_owned()))
    });
    let mut client = server.connect();
    client.send(
        "POST /1 HTTP/1.1\r\nhost: test\r\ncontent-length: 18\r\n\r\nGET /no HTTP/1.1\r\n\
         POST /2 HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nhost: test\r\n\r\n",
    );
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.answer().text(), path);
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_a_head() {
    let server = serve(echo_path);
    let mut client = server.connect();
    for byte in b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.answer().text(), "/slow");
}

#[test]
fn a_client_that_half_closes_after_its_request_gets_its_answer() {
    let (called, calls) = signals();
    let gate = support::Gate::default();
    let held = gate.clone();
    let server = serve(move |_req: Request, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        Response::new(Body::new("still here"))
    });
    let mut client = server.connect();
    client.ask("/");
    client.half_close();
    calls.next();
    gate.open();
    assert_eq!(client.answer().text(), "still here");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_client_that_half_closes_after_pipelining_gets_all_its_answers() {
    let server = serve(echo_path);
    let mut client = server.connect();
    let requests: String = (0..10).map(|i| format!("GET /{i} HTTP/1.1\r\nhost: test\r\n\r\n")).collect();
    client.send(requests);
    client.half_close();
    for i in 0..10 {
        assert_eq!(client.answer().text(), format!("/{i}"));
    }
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_client_that_ends_an_idle_connection_is_let_go() {
    let server = serve(echo_path);
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 200);
    client.half_close();
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn connection_close_is_honoured() {
    let server = serve(echo_path);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn http_1_0_is_served_without_a_host_and_then_closed() {
    let server = serve(echo_path);
    let mut client = server.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "/old");
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn an_answer_to_head_has_the_length_but_no_body() {
    let server = serve(|_req, _info| Response::new(Body::new("Hello World!")));
    let mut client = server.connect();
    client.send("HEAD / HTTP/1.1\r\nhost: test\r\n\r\n");
    let answer = client.answer_without_body();
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("12")));
    // Had a body been sent, it would be read as the next answer.
    assert_eq!(client.get("/").text(), "Hello World!");
}

#[test]
fn answers_204_205_and_304_have_no_body() {
    let server = serve(|req: Request, _info| {
        let status = req.uri().path()[1..].parse::<u16>().expect("the path is a status");
        ResponseBuilder::new().status(status).body(Body::new("not to be seen")).expect("valid")
    });
    let mut client = server.connect();
    for status in [204, 205, 304] {
        client.ask(&format!("/{status}"));
        let answer = client.answer_without_body();
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("transfer-encoding"), None);
        match status {
            204 => assert_eq!(answer.header("content-length"), None, "RFC 9110 section 8.6"),
            205 => assert_eq!(answer.header("content-length"), Some("0"), "section 15.3.6"),
            _ => {}
        }
    }
    assert_eq!(client.get("/200").text(), "not to be seen");
}

#[test]
fn a_handler_learns_both_addresses_of_its_connection() {
    let server = serve(|_req: Request, info: ConnectionInfo| {
        let addresses = (info.peer_addr(), info.local_addr());
        Response::new(Body::new(format!("{addresses:?}")))
    });
    let mut client = server.connect();
    let expected = format!("{:?}", (Some(client.local_addr()), Some(server.addr)));
    assert_eq!(client.get("/").text(), expected);
}

#[test]
fn every_listener_serves_the_same_handler() {
    let server = server().and_bind("127.0.0.1:0").expect("a second free port");
    let handle = server.start(HandlerFn(|exchange: astra_server::Exchange| {
        exchange.responder.send(Response::new(Body::new("both")));
    }));
    let handle = handle.expect("the server starts");
    let addrs = handle.local_addrs();
    assert_eq!(addrs.len(), 2);
    for addr in addrs {
        assert_eq!(Client::connect(addr).get("/").text(), "both");
    }
}

#[test]
fn a_port_in_use_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound");
    let error = Server::try_bind(addr).err().expect("the port is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn a_service_may_be_a_type_of_its_own_behind_an_arc() {
    struct Counter(Mutex<usize>);
    impl Service for Counter {
        fn call(&self, _request: Request, _info: ConnectionInfo) -> Response {
            let mut count = self.0.lock().expect("no handler panics");
            *count += 1;
            Response::new(Body::new(format!("request #{count}")))
        }
    }
    let server = serve(Counter(Mutex::new(0)));
    assert_eq!(server.connect().get("/").text(), "request #1");
    assert_eq!(server.connect().get("/").text(), "request #2");
}

#[test]
fn two_panics_with_two_workers_cost_two_answers_and_no_worker() {
    let server = support::start(server().max_workers(2), |req: Request, _info| {
        assert!(req.uri().path() != "/panic", "this panic belongs to the test");
        Response::new(Body::new("fine"))
    });
    for _ in 0..2 {
        let mut client = server.connect();
        assert_eq!(client.get("/panic").status, 500);
        // Same connection, same worker pool: both go on.
        assert_eq!(client.get("/").text(), "fine");
    }
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "fine");
    }
}

#[test]
fn a_500_says_nothing_about_the_panic() {
    let server = serve(|_req, _info| -> Response { panic!("this panic belongs to the test: secret") });
    let answer = server.connect().get("/");
    assert_eq!(answer.status, 500);
    assert!(!answer.text().contains("secret"), "{}", answer.text());
}

#[test]
fn a_responder_dropped_unsent_answers_500() {
    let server = start_handler(server(), HandlerFn(|exchange: astra_server::Exchange| drop(exchange.responder)));
    let mut client = server.connect();
    assert_eq!(client.get("/").status, 500);
    assert_eq!(client.get("/").status, 500);
}

#[test]
fn a_handler_may_send_its_answer_from_another_thread() {
    let server = start_handler(
        server(),
        HandlerFn(|exchange: astra_server::Exchange| {
            let responder = exchange.responder;
            std::thread::spawn(move || responder.send(Response::new(Body::new("from elsewhere"))));
        }),
    );
    let mut client = server.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/").text(), "from elsewhere");
    }
}

#[test]
fn many_clients_at_once_each_get_their_own_answers() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let server = serve(move |req: Request, _info| {
        count.fetch_add(1, Ordering::SeqCst);
        Response::new(Body::new(req.uri().path().to_owned()))
    });
    let addr = server.addr;
    let clients: Vec<_> = (0..16)
        .map(|c| {
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                for i in 0..200 {
                    let path = format!("/{c}/{i}");
                    assert_eq!(client.get(&path).text(), path);
                }
            })
        })
        .collect();
    for client in clients {
        client.join().expect("every client got its answers");
    }
    assert_eq!(served.load(Ordering::SeqCst), 16 * 200);
}
