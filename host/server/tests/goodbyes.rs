//! An HTTP/2 connection that was told to end does, whatever its client makes of that; what it had asked by then is answered.

mod support;

use std::io;
use std::time::{Duration, Instant};

use astra_server::{Body, Request, Response, Server};
use support::client::is_end;
use support::frames::{DATA, END_STREAM, GOAWAY, HEADERS, NO_ERROR, get, window_update};
use support::{Client, Gate, PATIENCE, Running, server, start, until};

const NO_LAST_STREAM: u32 = u32::MAX >> 1;

/// `/hold` is answered once the gate is open.
fn serve(server: Server, gate: &Gate) -> Running {
    let held = gate.clone();
    start(server, move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            held.wait();
        }
        Response::new(Body::new("hello"))
    })
}

/// What the server said to a client that passes over its goodbye.
#[derive(Default)]
struct Said {
    /// The last stream that each GOAWAY names.
    goodbyes: Vec<u32>,
    answered: Vec<u32>,
}

impl Said {
    /// Reads until `stream` is answered; false if it will not be, since there is a second GOAWAY that says so.
    fn listen(&mut self, client: &mut Client, stream: u32) -> bool {
        while self.goodbyes.last().is_none_or(|last| *last >= stream) {
            let frame = client.frame().expect("an answer, or GOAWAY");

            match frame.kind {
                GOAWAY => {
                    assert_eq!(frame.code(), NO_ERROR);
                    self.goodbyes.push(u32::from_be_bytes(frame.payload[..4].try_into().expect("a stream")));
                }
                HEADERS => self.answered.push(frame.stream),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 && frame.stream == stream {
                return true;
            }
        }
        false
    }
}

/// Asks on and on and answers no PING. What it sends ends with so many bytes of the next request.
fn ask_on(client: &mut Client, said: &mut Said, first: u32, ahead: usize) {
    let begun = Instant::now();
    let mut sent = 0;
    client.send(window_update(0, 1 << 30)); // what it is answered in the meantime
    for stream in (first..).step_by(2) {
        assert!(begun.elapsed() < PATIENCE, "the connection goes on and on");
        let mut bytes = get(stream, "/").split_off(sent);
        sent = ahead;
        bytes.extend(&get(stream + 2, "/")[..ahead]);
        match client.try_send(bytes) {
            Err(error) if is_end(&error) => return,
            sent => sent.expect("the server reads"),
        }
        if !said.listen(client, stream) {
            return;
        }
    }
}

#[test]
fn a_client_that_asks_on_after_goodbye_is_told_which_request_was_the_last() {
    let gate = Gate::default();
    let server = serve(server().max_requests_per_connection(2), &gate);
    // Its writes end with a frame, in a frame's header, in a payload.
    for ahead in [0, 1, 20] {
        let mut client = Client::connect_http2(server.addr);
        let mut said = Said::default();
        ask_on(&mut client, &mut said, 1, ahead);
        let last = *said.answered.last().expect("answers");
        assert_eq!(said.goodbyes, [NO_LAST_STREAM, last]);
        assert_eq!(client.goodbye(), None);
    }
}

#[test]
fn an_answer_that_is_under_way_is_waited_for_when_no_more_are_given() {
    let gate = Gate::default();
    let server = serve(server().max_requests_per_connection(1), &gate);
    let mut client = Client::connect_http2(server.addr);
    client.send(get(1, "/hold"));
    let mut said = Said::default();
    ask_on(&mut client, &mut said, 3, 0);
    assert_eq!(said.goodbyes, [NO_LAST_STREAM, *said.answered.last().expect("answers")]);
    gate.open();
    assert_eq!(client.status_of(1), 200);
    assert_eq!(client.goodbye(), None);
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_asks_on() {
    let gate = Gate::default();
    let server = serve(server(), &gate);
    let addr = server.addr;
    let mut client = Client::connect_http2(addr);
    client.send(get(1, "/"));
    assert_eq!(client.status_of(1), 200);
    let asking = std::thread::spawn(move || {
        let mut said = Said::default();
        ask_on(&mut client, &mut said, 3, 0);
        said
    });
    assert!(server.into_handle().shutdown(PATIENCE).is_none(), "nothing had to be cut");
    let said = asking.join().expect("the connection ends");
    assert_eq!(said.goodbyes, [NO_LAST_STREAM, *said.answered.last().expect("answers")]);
    until(
        "the port is free",
        || matches!(Client::try_connect(addr), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused),
    );
}

#[test]
fn a_client_that_says_nothing_after_goodbye_is_closed() {
    let gate = Gate::default();
    let server = serve(server().idle_timeout(Duration::from_millis(20)), &gate);
    let mut client = Client::connect_http2(server.addr);
    let mut said = Said::default();
    assert!(!said.listen(&mut client, 1));
    assert_eq!(said.goodbyes, [NO_LAST_STREAM, 0]);
    assert_eq!(client.goodbye(), None);
}
