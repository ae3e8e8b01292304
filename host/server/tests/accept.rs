//! Accepting survives everything, and a connection costs no thread.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use astra_server::{Body, Exchange, ListeningSocket, Request, Response, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{
    Client, HandlerFn, PATIENCE, alone, is_child, serve, server, signals, spawn_child, start, start_handler, threads,
    until,
};

const OUT_OF_DESCRIPTORS: &str = "accept_survives_running_out_of_descriptors";

#[test]
fn accept_survives_running_out_of_descriptors() {
    if is_child(OUT_OF_DESCRIPTORS) {
        return serve_with_few_descriptors();
    }
    let mut child = spawn_child(OUT_OF_DESCRIPTORS);
    let output = BufReader::new(child.0.stdout.take().expect("piped"));
    let addr: SocketAddr = output
        .lines()
        .map(|line| line.expect("text"))
        .find_map(|line| line.split("listening on ").nth(1)?.parse().ok())
        .expect("the child says where it listens");

    // The backlog takes what the server cannot accept.
    let mut first = Client::connect(addr);
    assert_eq!(first.get("/").text(), "some left");
    let mut crowd: Vec<Client> = (0..100).map(|_| Client::connect(addr)).collect();
    until("no descriptor is left", || first.get("/").text() == "none left");

    // Those that are connected are served; when they leave, those that wait are accepted.
    let mut last = crowd.pop().expect("a hundred clients");
    drop(crowd);
    assert_eq!(last.get("/").status, 200);
    assert_eq!(Client::connect(addr).get("/").text(), "some left");
    assert_eq!(first.get("/").text(), "some left");
}

fn serve_with_few_descriptors() {
    let limit = Rlimit { current: Some(48), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).expect("a lower limit is always allowed");
    let server = start(server().max_connections(10_000), |_req, _info| {
        let left = File::open("/dev/null").is_ok();
        Response::new(Body::new(if left { "some left" } else { "none left" }))
    });
    announce(server.addr);
    // Until the test is done and this process is killed.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

#[allow(clippy::print_stdout, reason = "how the child tells its parent the address")]
fn announce(addr: SocketAddr) {
    println!("listening on {addr}");
}

#[test]
fn two_thousand_idle_connections_add_no_threads() {
    alone("two_thousand_idle_connections_add_no_threads", || {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("soft up to hard");

        let server = serve(|_req, _info| Response::new(Body::new("hello")));
        let connect_and_use = || {
            let mut client = server.connect();
            assert_eq!(client.get("/").text(), "hello");
            client
        };
        let few: Vec<Client> = (0..20).map(|_| connect_and_use()).collect();
        let with_few = threads().len();
        let mut many: Vec<Client> = (0..1000).map(|_| connect_and_use()).collect();
        many.extend((0..1000).map(|_| server.connect()));
        let with_many = threads();
        // Workers may come and go; connections do not bring any.
        assert!(with_many.len() < with_few + 16, "{with_few} threads, then {}: {with_many:?}", with_many.len());
        for client in many.iter_mut().rev().take(1500) {
            assert_eq!(client.get("/").text(), "hello");
        }
        drop(few);
    });
}

#[test]
fn a_socket_is_passed_on_to_another_server_while_the_first_serves_its_connections() {
    let says = |text: &'static str| move |_req: Request, _info| Response::new(Body::new(text));
    let first = serve(says("first"));
    let addr = first.addr;
    let mut client = first.connect();
    assert_eq!(client.get("/").text(), "first");
    let handle = first.into_handle();
    let sockets = handle.sockets();
    let passed = sockets.try_clone().expect("there are descriptors");
    assert!(passed.iter().all(|socket| !socket.speaks_tls));
    let listen = |server: Server, socket: ListeningSocket| server.and_listen(socket.fd);
    let second = passed.into_iter().try_fold(Server::default(), listen).expect("they listen");
    let second = start(second, says("second"));
    assert_eq!(second.addr, addr);
    sockets.close();
    assert!(sockets.try_clone().expect("there are descriptors").is_empty());
    for _ in 0..100 {
        assert_eq!(Client::connect(addr).get("/").text(), "second");
    }
    assert_eq!(client.get("/").text(), "first");
    assert!(handle.shutdown(PATIENCE).is_none());
    assert_eq!(second.connect().get("/").text(), "second");
}

#[test]
fn only_a_stream_socket_that_listens_is_taken() {
    let connected = std::os::unix::net::UnixStream::pair().expect("a pair").0;
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    for socket in [OwnedFd::from(connected), OwnedFd::from(datagrams)] {
        assert!(Server::default().and_listen(socket).is_err());
    }
}

#[test]
fn at_the_connection_limit_new_clients_wait_until_one_leaves() {
    let server = start(server().max_connections(4), |_req, _info| Response::new(Body::new("hello")));
    let mut connected: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut connected {
        assert_eq!(client.get("/").text(), "hello");
    }
    let mut waiting: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.ask("/");
    }
    for client in &mut connected {
        assert_eq!(client.get("/").text(), "hello");
    }
    drop(connected);
    for client in &mut waiting {
        assert_eq!(client.answer().text(), "hello");
    }
}

#[test]
fn clients_that_connect_and_go_away_at_once_do_no_harm() {
    let server = serve(|_req, _info| Response::new(Body::new("hello")));
    for _ in 0..200 {
        server.connect().reset();
        drop(server.connect());
    }
    assert_eq!(server.connect().get("/").text(), "hello");
}

#[test]
fn clients_that_go_away_before_their_answer_leave_no_descriptor_behind() {
    alone("clients_that_go_away_before_their_answer_leave_no_descriptor_behind", || {
        let (called, calls) = signals();
        let (gone, answers) = signals();
        let handler = HandlerFn(move |exchange: Exchange| {
            if exchange.request.uri().path() == "/late" {
                let client = exchange.responder.client();
                called.send(()).expect("the test listens");
                until("the client is gone", || client.is_gone());
            }
            exchange.responder.send(Response::new(Body::new("hello")));
            gone.send(()).expect("the test listens");
        });
        let server = start_handler(server(), handler);
        let mut first = server.connect();
        assert_eq!(first.get("/").text(), "hello");
        answers.next();
        let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux lists descriptors").count();
        let before = descriptors();
        for _ in 0..50 {
            let mut client = server.connect();
            client.ask("/late");
            calls.next();
            client.reset();
            answers.next();
        }
        until("the server has closed its side of all of them", || descriptors() <= before);
        assert_eq!(first.get("/").text(), "hello");
    });
}

/// In the kernel's table the second number of `tr tm->when` is 02 for a timer that is keepalive's (proc_net_tcp.txt).
#[cfg(target_os = "linux")]
#[test]
fn connections_have_keepalive() {
    let server = start(server(), |_req, _info| Response::new(Body::new("served")));
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "served");
    let hex = |port: u16| format!("{port:04X}");
    let (here, there) = (hex(server.addr.port()), hex(client.stream_mut().local_addr().expect("connected").port()));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let is_ours = |row: &&str| {
        let ends: Vec<&str> =
            row.split_whitespace().take(3).filter_map(|end| end.rsplit_once(':')).map(|(_, port)| port).collect();
        ends.ends_with(&[&*here, &*there])
    };
    let row = table.lines().find(is_ours).expect("the server's end");
    assert_eq!(row.split_whitespace().nth(5).map(|timer| &timer[..2]), Some("02"), "{row}");
}
