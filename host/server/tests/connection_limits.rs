//! Bounds on a connection and on those of one peer: they end it without losing a request.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use astra_server::{Body, Event, Response, Server};
use support::{Client, Running, server, start, until};

fn hello(server: Server) -> Running {
    start(server, |_req, _info| Response::new(Body::new("hello")))
}

#[test]
fn the_last_request_that_a_connection_may_have_is_answered_with_close() {
    let server = hello(server().max_requests_per_connection(3));
    let mut client = server.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").header("connection"), None);
    }
    client.ask("/third");
    client.ask("/fourth");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn an_old_client_that_keeps_alive_is_told_too() {
    let server = hello(server().max_requests_per_connection(2));
    let mut client = server.connect();
    let request = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    client.send(request);
    assert_eq!(client.answer().header("connection"), Some("keep-alive"));
    client.send(request);
    assert_eq!(client.answer().header("connection"), Some("close"));
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn a_connection_that_is_too_old_answers_one_more_request() {
    let server = hello(server().max_connection_age(Duration::from_millis(20)));
    let mut client = server.connect();
    thread::sleep(Duration::from_millis(100)); // it grows old
    let answer = client.get("/");
    assert_eq!((answer.text(), answer.header("connection")), ("hello", Some("close")));
    assert_eq!(client.until_closed(), b"");
}

/// A connection from another address of the loopback network, all of which are ours on Linux.
fn connect_from(address: Ipv4Addr, server: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((address, 0)).into()).expect("an address of this machine");
    socket.connect(&server.into()).expect("the server accepts");
    Client::over(socket.into())
}

#[test]
fn a_peer_with_too_many_connections_is_turned_away_and_others_are_not() {
    let server = hello(server().max_connections_per_peer(2));
    let addr = server.addr;
    let mut first = Client::connect(addr);
    let mut second = Client::connect(addr);
    assert_eq!(first.get("/").text(), "hello");
    assert_eq!(second.get("/").text(), "hello");
    assert_eq!(Client::connect(addr).until_closed(), b"");
    assert_eq!(Client::connect(addr).until_closed(), b"");
    if cfg!(target_os = "linux") {
        assert_eq!(connect_from(Ipv4Addr::new(127, 0, 0, 2), addr).get("/").text(), "hello");
    }
    drop(first);
    until("the place of the first is free", || {
        let mut client = Client::connect(addr);
        client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").is_ok() && client.try_answer().is_ok()
    });
    assert_eq!(second.get("/").text(), "hello");
    let handle = server.into_handle();
    assert!(handle.counts().of(Event::MaxConnectionsPerPeer) >= 2);
    handle.shutdown(Duration::from_secs(1));
}

#[test]
fn without_the_option_nobody_is_turned_away() {
    let server = hello(server());
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(server.into_handle().counts().of(Event::MaxConnectionsPerPeer), 0);
}
