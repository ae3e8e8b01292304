//! The PROXY protocol, version 2: who the client of a proxy is. Believed of those who were named, and of nobody else.

mod support;

use std::net::SocketAddr;

use astra_server::{Body, ConnectionInfo, Request, Response, Server};
use support::{Client, Running, server, start};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
/// 192.0.2.1:8080 has connected to 198.51.100.7:80.
const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0x1f, 0x90, 0, 80];

fn announced(last_octet: u8) -> Vec<u8> {
    let mut addresses = IPV4.to_vec();
    addresses[3] = last_octet;
    [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat()
}

/// Tells each client who it is, and where it has connected to.
fn telling(server: Server) -> Running {
    start(server, |_: Request, info: ConnectionInfo| {
        let text = |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        Response::new(Body::new(format!("{} {}", text(info.peer_addr()), text(info.local_addr()))))
    })
}

fn behind_a_proxy() -> Running {
    telling(server().proxy_protocol(|peer| peer.is_loopback()))
}

#[test]
fn a_client_is_who_its_proxy_says_however_the_bytes_come() {
    let server = behind_a_proxy();
    let sent = [announced(1), REQUEST.to_vec(), REQUEST.to_vec()].concat();
    let mut at_once = server.connect();
    at_once.send(&sent);
    let mut in_pieces = server.connect();
    for byte in &sent {
        in_pieces.send([*byte]);
    }
    for client in [&mut at_once, &mut in_pieces] {
        for _ in 0..2 {
            assert_eq!(client.answer().text(), "192.0.2.1:8080 198.51.100.7:80");
        }
    }
}

#[test]
fn it_may_be_followed_by_http_2() {
    let server = behind_a_proxy();
    let mut client = server.connect();
    client.send([&announced(1), &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat());
    let settings = client.exactly(9).expect("a frame");
    assert_eq!(settings[3], 4, "SETTINGS");
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let server = behind_a_proxy();
    let mut client = server.connect();
    client.send([SIGNATURE, &[0x20, 0, 0, 0], REQUEST].concat());
    assert_eq!(client.answer().text(), format!("{} {}", client.local_addr(), server.addr));
}

#[test]
fn a_proxy_that_does_not_say_is_cut() {
    let server = behind_a_proxy();
    for sent in [
        REQUEST.to_vec(),
        [b"PROXY TCP4 192.0.2.1 198.51.100.7 8080 80\r\n", REQUEST].concat(),
        [SIGNATURE, &[0x21, 0x11, 0, 11], &IPV4[..11], REQUEST].concat(),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], IPV4].concat(),
    ] {
        let mut client = server.connect();
        client.send(&sent);
        assert_eq!(client.until_closed(), b"", "{sent:?}");
    }
    let mut client = server.connect();
    client.send([announced(1), REQUEST.to_vec()].concat());
    assert_eq!(client.answer().status, 200, "others are served");
}

#[test]
fn nobody_else_is_believed() {
    let server = telling(server().proxy_protocol(|peer| !peer.is_loopback()));
    assert!(server.connect().get("/").text().starts_with("127.0.0.1:"));
    let mut client = server.connect();
    client.send([announced(1), REQUEST.to_vec()].concat());
    let answer = String::from_utf8_lossy(&client.until_closed()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn connections_are_counted_for_who_is_announced() {
    let server = telling(server().proxy_protocol(|peer| peer.is_loopback()).max_connections_per_peer(1));
    let ask = |last_octet: u8| {
        let mut client = server.connect();
        client.send([announced(last_octet), REQUEST.to_vec()].concat());
        client
    };
    let served = |mut client: Client| {
        assert_eq!(client.answer().status, 200);
        client
    };
    let _first = served(ask(1));
    let _second = served(ask(2));
    assert_eq!(ask(1).until_closed(), b"");
}
