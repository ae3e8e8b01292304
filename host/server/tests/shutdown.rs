//! `Handle::shutdown` answers what has been sent, tells connections that they end before it closes them, takes nothing new, and
//! leaves no thread behind.

mod support;

use std::future::pending;
use std::io::Write;
use std::time::Duration;

use astra_server::{Body, Exchange, Interrupted, Request, Response, wait};
use support::client::Answer;
use support::{
    Client, Gate, HandlerFn, PATIENCE, Running, alone, serve, server, signals, start_handler, threads, until,
};

#[test]
fn requests_in_flight_are_answered_and_idle_connections_closed_at_the_end() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            held.wait();
        }
        Response::new(Body::new("served"))
    });
    let addr = server.addr;
    let mut idle = server.connect();
    assert_eq!(idle.get("/").text(), "served");
    let mut silent = server.connect();
    let mut reused = server.connect();
    assert_eq!(reused.get("/").text(), "served");
    let mut fresh = server.connect();
    let mut busy = server.connect();
    busy.ask("/hold");
    calls.next();

    let stopping = stop(server);
    until("new connections are refused", || Client::try_connect(addr).is_err());
    for client in [&mut reused, &mut fresh] {
        assert_last(&client.get("/"));
        assert_eq!(client.until_closed(), b"");
    }

    gate.open();
    assert_last(&busy.answer());
    assert_eq!(busy.until_closed(), b"");
    assert_eq!(idle.until_closed(), b"");
    assert_eq!(silent.until_closed(), b"");
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn a_connection_whose_answer_began_before_is_told_with_its_next() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = serve(move |req: Request, _info| {
        if req.uri().path() == "/" {
            return Response::new(Body::new("served"));
        }
        let (called, held) = (called.clone(), held.clone());
        Response::new(Body::stream(move |writer| {
            writer.write_all(b"first")?;
            writer.flush()?;
            called.send(()).expect("the test listens");
            astra_server::blocking(|| held.wait());
            writer.write_all(b"last")
        }))
    });
    let addr = server.addr;
    let mut client = server.connect();
    client.ask("/stream");
    assert_eq!(client.head().header("connection"), None);
    calls.next();
    let stopping = stop(server);
    until("new connections are refused", || Client::try_connect(addr).is_err());
    gate.open();
    while client.chunk().expect("a whole body").is_some() {}
    client.exactly(2).expect("the end of the trailers");
    assert_last(&client.get("/"));
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn what_is_in_the_backlog_is_served() {
    let server = support::start(server().max_connections(1), |_req, _info| Response::new(Body::new("served")));
    let mut first = server.connect();
    assert_eq!(first.get("/").text(), "served");
    // Until the first has gone these are not accepted.
    let mut waiting = [server.connect(), server.connect()];
    for client in &mut waiting {
        client.ask("/");
    }
    let stopping = stop(server);
    for client in &mut waiting {
        assert_last(&client.answer());
    }
    assert_eq!(first.until_closed(), b"");
    assert!(stopping.join().expect("shutdown returns").is_none(), "nothing had to be cut");
}

#[test]
fn under_load_no_request_fails_on_a_connection_that_was_not_told_to_close() {
    let server = serve(|_req, _info| Response::new(Body::new("served")));
    let (busy, begun) = signals();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, busy) = (server.connect(), busy.clone());
            std::thread::spawn(move || {
                for n in 0.. {
                    let answer = client.get("/");
                    assert_eq!(answer.text(), "served");
                    if answer.header("connection") == Some("close") {
                        assert_eq!(client.until_closed(), b"");
                        return;
                    }
                    if n == 10 {
                        busy.send(()).expect("the test listens");
                    }
                }
            })
        })
        .collect();
    for _ in &clients {
        begun.next();
    }
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing had to be cut");
    for client in clients {
        client.join().expect("no request fails");
    }
}

#[test]
fn an_idle_connection_is_closed_at_the_end_of_a_drain_that_is_shorter_than_its_grace() {
    let server = serve(|_req, _info| Response::new(Body::new("served")));
    let mut idle = server.connect();
    assert_eq!(idle.get("/").text(), "served");
    assert!(server.into_handle().shutdown(Duration::from_millis(20)).is_none(), "nothing had to be cut");
    assert_eq!(idle.until_closed(), b"");
}

/// Shuts it down on a thread of its own, which returns what `shutdown` does.
fn stop(server: Running) -> std::thread::JoinHandle<Option<usize>> {
    let handle = server.into_handle();
    std::thread::spawn(move || handle.shutdown(PATIENCE))
}

fn assert_last(answer: &Answer) {
    assert_eq!(answer.text(), "served");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_server_that_does_nothing_stops_at_once() {
    let server = serve(|_req, _info| Response::new(Body::empty()));
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
}

#[test]
fn what_does_not_finish_in_time_is_cut() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let server = start_handler(
        server(),
        HandlerFn(move |_exchange: Exchange| {
            called.send(()).expect("the test listens");
            ended.send(wait(pending::<()>(), None)).expect("the test listens");
        }),
    );
    let mut client = server.connect();
    client.ask("/");
    calls.next();
    assert_eq!(server.into_handle().shutdown(Duration::from_millis(20)), Some(1), "a request was cut");
    assert_eq!(ends.next(), Err(Interrupted::ClientGone));
    client.until_closed();
}

#[test]
fn what_cannot_be_cut_is_left_behind_by_a_server_that_was_told_so() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = support::start(server().abandon_after(Duration::from_millis(20)), move |_req, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        ended.send(()).expect("the test listens");
        Response::new(Body::empty())
    });
    let mut client = server.connect();
    client.ask("/");
    calls.next();
    assert!(server.into_handle().shutdown(Duration::ZERO).is_some(), "it did not end");
    client.until_closed();
    gate.open();
    ends.next();
}

#[test]
fn a_port_can_be_bound_again_after_shutdown() {
    let server = serve(|_req, _info| Response::new(Body::new("first")));
    let addr = server.addr;
    assert_eq!(server.connect().get("/").text(), "first");
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
    let again = astra_server::Server::try_bind(addr).expect("the port is free");
    let server = support::start(again, |_req, _info| Response::new(Body::new("second")));
    assert_eq!(server.connect().get("/").text(), "second");
}

#[test]
fn after_shutdown_no_thread_is_left() {
    alone("after_shutdown_no_thread_is_left", || {
        let before = threads().len();
        let gate = Gate::default();
        let held = gate.clone();
        let (called, calls) = signals();
        let server = support::start(server().max_workers(64), move |req: Request, _info| {
            if req.uri().path() == "/hold" {
                called.send(()).expect("the test listens");
                astra_server::blocking(|| held.wait());
            }
            Response::new(Body::new("served"))
        });
        let mut clients: Vec<Client> = (0..32).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask("/hold");
        }
        for _ in &clients {
            calls.next();
        }
        assert!(threads().len() > before + 32, "32 handlers wait on 32 threads");
        gate.open();
        for client in &mut clients {
            assert_eq!(client.answer().text(), "served");
        }
        assert!(server.into_handle().shutdown(PATIENCE).is_none());
        assert_eq!(threads().len(), before, "{:?}", threads());
    });
}

#[test]
fn a_handle_that_is_dropped_leaves_no_thread() {
    alone("a_handle_that_is_dropped_leaves_no_thread", || {
        let before = threads().len();
        let server = serve(|_req, _info| Response::new(Body::new("served")));
        let mut client = server.connect();
        assert_eq!(client.get("/").text(), "served");
        drop(server.into_handle());
        assert_eq!(threads().len(), before, "{:?}", threads());
        client.until_closed();
    });
}

#[test]
fn idle_workers_end_after_their_keep_alive() {
    alone("idle_workers_end_after_their_keep_alive", || {
        let gate = Gate::default();
        let held = gate.clone();
        let (called, calls) = signals();
        let server = support::start(
            server().max_workers(64).worker_keep_alive(Duration::from_millis(20)),
            move |_req, _info| {
                called.send(()).expect("the test listens");
                astra_server::blocking(|| held.wait());
                Response::new(Body::new("served"))
            },
        );
        let mut clients: Vec<Client> = (0..32).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.ask("/");
        }
        for _ in &clients {
            calls.next();
        }
        let busy = threads().len();
        gate.open();
        for client in &mut clients {
            assert_eq!(client.answer().text(), "served");
        }
        until("most workers have ended", || threads().len() + 16 < busy);
        assert_eq!(server.connect().get("/").text(), "served");
    });
}
