//! RFC 9113 as tables: what a client may send wrong, frame by frame, and what a server must do then. Each row is sent over a
//! connection of its own by hand.
//!
//! Two sentences of section 5.4 hold for all rows: a generic code (PROTOCOL_ERROR) can always stand for a more specific one, and
//! a stream error may be treated as a connection error. Where h2, hyper's parser, makes use of them, the row says what was asked
//! for. Where it does less than it must, the row is in `what_h2_does_not_do`, with what happens instead.

mod support;

use std::future::pending;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};

use astra_server::{Body, Request, Response, Server, wait};
use support::frames::{
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Frame, GOAWAY,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, NO_ERROR, PADDED, PING, PREFACE, PRIORITIZED,
    PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, STREAM_CLOSED, UNKNOWN,
    WINDOW_UPDATE, data, fields, frame, get, ping, post, request_fields, rst_stream, settings, settings_ack,
    window_update,
};
use support::{Client, Running, serve, server, start};

/// What becomes of what a row sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// GOAWAY with this code, and the end of the connection.
    Connection(u32),
    /// RST_STREAM with this code on stream 1; the connection goes on.
    Stream(u32),
    /// Stream 1 is answered with this status; the connection goes on.
    Answer(u16),
    /// Nothing; the connection goes on.
    Ignored,
}
use Outcome::{Answer, Connection, Ignored, Stream};

/// A row: section, what it is about, what is sent, and what must come of it.
type Row<'a> = (&'a str, &'a str, Vec<u8>, Outcome);

/// The stream on which is asked whether the connection goes on.
const LAST: u32 = 1001;

/// What comes of `bytes`: the first thing that is said of stream 1, or of the connection. What should come may come last.
fn outcome(client: &mut Client, bytes: &[u8], expected: Outcome) -> Outcome {
    // It may be closed before it has taken all.
    let _ = client.try_send([bytes, &get(LAST, "/")].concat());
    let (mut said, mut goes_on) = (Ignored, false);
    while !goes_on || (said == Ignored && expected != Ignored) {
        let Some(frame) = client.frame() else { panic!("the connection ended without GOAWAY, after {said:?}") };
        match frame {
            Frame { kind: GOAWAY, .. } => {
                let code = frame.code();
                assert_eq!(client.goodbye(), None, "a second GOAWAY");
                return Connection(code);
            }
            Frame { kind: RST_STREAM, stream: 1, .. } if said == Ignored => said = Stream(frame.code()),
            Frame { kind: HEADERS, stream: 1, .. } if said == Ignored => said = Answer(frame.status()),
            Frame { kind: HEADERS, stream: LAST, .. } => {
                assert_eq!(frame.status(), 200, "the connection goes on");
                goes_on = true;
            }
            _ => {}
        }
    }
    said
}

/// Answers at once; `/read` once it has read the body; `/hold` when the client is gone.
fn serve_rows(server: Server) -> Running {
    start(server, |mut req: Request, _info| {
        match req.uri().path() {
            "/hold" => drop(wait(pending::<()>(), None)),
            "/read" => drop(req.body_mut().reader().read_to_end(&mut Vec::new())),
            _ => {}
        }
        Response::new(Body::new("hello"))
    })
}

fn check(rows: &[Row<'_>]) {
    check_on(server(), &[], rows);
}

/// Each row after `before`, whose answer on stream 1 is waited for.
fn check_on(server: Server, before: &[u8], rows: &[Row<'_>]) {
    let server = serve_rows(server);
    let mut wrong = Vec::new();
    for (section, about, bytes, expected) in rows {
        let mut client = Client::connect_http2(server.addr);
        if !before.is_empty() {
            client.send(before);
            client.status_of(1);
        }
        // What panics has said why, but not in which row.
        let outcome = catch_unwind(AssertUnwindSafe(|| outcome(&mut client, bytes, *expected)));
        if outcome.as_ref().ok() != Some(expected) {
            wrong.push(format!("{section}, {about}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A request on stream 1 with these fields after those that it must have.
fn get_with(more: &[(&str, &str)]) -> Vec<u8> {
    let block = [request_fields("GET", "/"), fields(more)].concat();
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
}

/// A request on stream 1 with these fields only.
fn get_of(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(all))
}

/// The first half of a request's header block on stream 1.
fn half_open() -> Vec<u8> {
    frame(HEADERS, END_STREAM, 1, &request_fields("GET", "/"))
}

fn block(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, block)
}

#[test]
fn frames_have_headers_sizes_and_types() {
    let reserved = 1 << 31;
    check(&[
        ("4.1", "an unknown type", frame(UNKNOWN, 0xff, 0, b"anything"), Ignored),
        ("4.1", "an unknown type on a stream", [get(1, "/hold"), frame(UNKNOWN, 0xff, 1, b"")].concat(), Ignored),
        ("4.1", "flags that PING does not have", frame(PING, !ACK, 0, &[0; 8]), Ignored),
        (
            "4.1",
            "flags that HEADERS does not have",
            frame(HEADERS, 0xd2 | END_HEADERS | END_STREAM, 1, &request_fields("GET", "/")),
            Answer(200),
        ),
        ("4.1", "the reserved bit", get(reserved | 1, "/"), Answer(200)),
        (
            "4.2",
            "as large as a frame may be",
            [post(1, "/read"), data(1, END_STREAM, [0; 16_384])].concat(),
            Answer(200),
        ),
        (
            "4.2",
            "larger DATA",
            [post(1, "/read"), data(1, END_STREAM, [0; 16_385])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("4.2", "larger HEADERS", frame(HEADERS, END_HEADERS, 1, &[0; 16_385]), Connection(FRAME_SIZE_ERROR)),
        ("4.2", "larger SETTINGS", frame(SETTINGS, 0, 0, &[0; 6 * 2731]), Connection(FRAME_SIZE_ERROR)),
        ("4.2", "a larger unknown one", frame(UNKNOWN, 0, 0, &[0; 16_385]), Connection(FRAME_SIZE_ERROR)),
    ]);
}

#[test]
fn header_blocks_decompress_and_are_whole() {
    // COMPRESSION_ERROR is asked for.
    let malformed = Connection(PROTOCOL_ERROR);
    check(&[
        ("4.3", "index 0", block(&[0x80]), malformed),
        ("4.3", "an index that is in no table", block(&[0xff, 0x40]), malformed),
        ("4.3", "an index that does not end", block(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), malformed),
        ("4.3", "a string that is cut", block(&[0, 10, b'x']), malformed),
        ("4.3", "a value that is missing", block(&[0, 1, b'x']), malformed),
        ("4.3", "Huffman code with eight bits of padding", block(&[0, 0x81, 0xff, 1, b'x']), malformed),
        ("4.3", "Huffman code with padding of zeros", block(&[0, 0x81, 0x00, 1, b'x']), malformed),
        ("4.3.1", "a table larger than the settings allow", block(&[0x3f, 0xe1, 0xff, 0x03]), malformed),
        ("4.3.1", "a table's size that is not at the beginning", block(&[0x82, 0x20]), malformed),
        (
            "4.3.1",
            "a table's size at the beginning",
            block(&[&[0x20], &request_fields("GET", "/")[..]].concat()),
            Answer(200),
        ),
    ]);
    let within = |bytes: Vec<u8>| [half_open(), bytes].concat();
    check(&[
        (
            "6.10",
            "a block in three frames",
            within(
                [frame(CONTINUATION, 0, 1, b""), frame(CONTINUATION, END_HEADERS, 1, &fields(&[("a", "b")]))].concat(),
            ),
            Answer(200),
        ),
        ("6.2", "DATA within a block", within(data(1, 0, "x")), Connection(PROTOCOL_ERROR)),
        ("6.2", "another stream's HEADERS within a block", within(get(3, "/")), Connection(PROTOCOL_ERROR)),
        ("6.2", "HEADERS of the same stream within a block", within(get(1, "/")), Connection(PROTOCOL_ERROR)),
        (
            "6.2",
            "another stream's CONTINUATION within a block",
            within(frame(CONTINUATION, END_HEADERS, 3, b"")),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION of stream 0 within a block",
            within(frame(CONTINUATION, END_HEADERS, 0, b"")),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.2", "PRIORITY within a block", within(frame(PRIORITY, 0, 1, &[0; 5])), Connection(PROTOCOL_ERROR)),
        ("6.2", "RST_STREAM within a block", within(rst_stream(1, NO_ERROR)), Connection(PROTOCOL_ERROR)),
        ("6.2", "SETTINGS within a block", within(settings(&[])), Connection(PROTOCOL_ERROR)),
        ("6.2", "PING within a block", within(ping(b"12345678")), Connection(PROTOCOL_ERROR)),
        ("6.2", "WINDOW_UPDATE within a block", within(window_update(0, 1)), Connection(PROTOCOL_ERROR)),
        ("5.5", "an unknown type within a block", within(frame(UNKNOWN, 0, 1, b"")), Connection(PROTOCOL_ERROR)),
        (
            "6.10",
            "PING after CONTINUATION that does not end it",
            within([frame(CONTINUATION, 0, 1, b""), ping(b"12345678")].concat()),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after a block",
            [get(1, "/hold"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.10",
            "CONTINUATION after DATA",
            [post(1, "/read"), data(1, 0, "x"), frame(CONTINUATION, END_HEADERS, 1, b"")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.10", "CONTINUATION after nothing", frame(CONTINUATION, END_HEADERS, 1, b""), Connection(PROTOCOL_ERROR)),
    ]);
}

#[test]
fn streams_have_states() {
    // What h2 says where STREAM_CLOSED, of the stream, is asked for.
    let closed = Connection(PROTOCOL_ERROR);
    check(&[
        ("5.1", "idle: DATA", data(1, 0, "x"), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle: RST_STREAM", rst_stream(1, NO_ERROR), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle: WINDOW_UPDATE", window_update(1, 1), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle: PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), Ignored),
        ("5.1", "idle, a server's: HEADERS", get(2, "/"), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle, a server's: DATA", data(2, 0, "x"), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle, a server's: RST_STREAM", rst_stream(2, NO_ERROR), Connection(PROTOCOL_ERROR)),
        ("5.1", "idle, a server's: WINDOW_UPDATE", window_update(2, 1), Connection(PROTOCOL_ERROR)),
        ("5.1", "half-closed: DATA", [get(1, "/hold"), data(1, 0, "x")].concat(), closed),
        ("5.1", "half-closed: HEADERS", [get(1, "/hold"), get(1, "/")].concat(), closed),
        (
            "5.1",
            "half-closed by DATA: DATA",
            [post(1, "/hold"), data(1, END_STREAM, "x"), data(1, 0, "x")].concat(),
            closed,
        ),
        ("5.1", "half-closed: PRIORITY", [get(1, "/hold"), frame(PRIORITY, 0, 1, &[0; 5])].concat(), Ignored),
        ("5.1", "half-closed: WINDOW_UPDATE", [get(1, "/hold"), window_update(1, 1)].concat(), Ignored),
        ("5.1", "half-closed: RST_STREAM", [get(1, "/hold"), rst_stream(1, NO_ERROR)].concat(), Ignored),
        (
            "5.4.2",
            "open: RST_STREAM is not answered with one",
            [post(1, "/read"), rst_stream(1, NO_ERROR)].concat(),
            Ignored,
        ),
        (
            "6.4",
            "RST_STREAM with a code that nobody knows",
            [get(1, "/hold"), rst_stream(1, 0xdead_beef)].concat(),
            Ignored,
        ),
        (
            "5.1",
            "closed by the client: DATA",
            [post(1, "/read"), rst_stream(1, NO_ERROR), data(1, 0, "x")].concat(),
            Stream(STREAM_CLOSED),
        ),
        (
            "5.1",
            "closed by the client: HEADERS",
            [get(1, "/hold"), rst_stream(1, NO_ERROR), get(1, "/")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "5.1",
            "closed by the client: WINDOW_UPDATE",
            [get(1, "/hold"), rst_stream(1, NO_ERROR), window_update(1, 1)].concat(),
            Ignored,
        ),
        (
            "5.1",
            "closed by the client: RST_STREAM",
            [get(1, "/hold"), rst_stream(1, NO_ERROR), rst_stream(1, NO_ERROR)].concat(),
            Ignored,
        ),
        (
            "5.4.2",
            "closed by us: DATA that was under way",
            [frame(HEADERS, END_HEADERS, 1, &fields(&[(":method", "POST")])), data(1, END_STREAM, "x")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "5.4.2",
            "closed by us: trailers that were under way",
            [
                frame(HEADERS, END_HEADERS, 1, &fields(&[(":method", "POST")])),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("a", "b")])),
            ]
            .concat(),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "5.4.2",
            "closed by us: WINDOW_UPDATE that was under way",
            [block(&fields(&[(":method", "GET")])), window_update(1, 1)].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("5.1.1", "a number of a server", get(10, "/"), Connection(PROTOCOL_ERROR)),
        ("5.1.1", "a number lower than the last", [get(5, "/"), get(3, "/")].concat(), Connection(PROTOCOL_ERROR)),
        (
            "5.1.1",
            "a number that was passed over is closed",
            [get(5, "/"), window_update(3, 1), rst_stream(3, NO_ERROR)].concat(),
            Ignored,
        ),
    ]);
    check_on(
        server(),
        &get(1, "/"),
        &[
            ("5.1", "closed: DATA", data(1, 0, "x"), Stream(STREAM_CLOSED)),
            ("5.1", "closed: HEADERS", get(1, "/"), Connection(PROTOCOL_ERROR)),
            ("6.9", "closed: WINDOW_UPDATE", window_update(1, 1), Ignored),
            ("5.1", "closed: RST_STREAM", rst_stream(1, NO_ERROR), Ignored),
            ("5.1", "closed: PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), Ignored),
        ],
    );
}

#[test]
fn data_headers_and_priority_are_of_streams_and_padded_by_less_than_they_hold() {
    let open = |bytes: Vec<u8>| [post(1, "/read"), bytes].concat();
    let padded = |length: u8, rest: &[u8]| {
        let block = [&[length], &request_fields("GET", "/")[..], rest].concat();
        frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &block)
    };
    let prioritized = |dependency: &[u8]| {
        let block = [dependency, &request_fields("GET", "/")].concat();
        frame(HEADERS, PRIORITIZED | END_HEADERS | END_STREAM, 1, &block)
    };
    check(&[
        ("6.1", "DATA of stream 0", data(0, 0, "x"), Connection(PROTOCOL_ERROR)),
        (
            "6.1",
            "as much padding as there is room for",
            open(data(1, PADDED | END_STREAM, [4, 0, 0, 0, 0])),
            Answer(200),
        ),
        (
            "6.1",
            "padding as long as the payload",
            open(data(1, PADDED | END_STREAM, [5, 0, 0, 0, 0])),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.1",
            "padding longer than the payload",
            open(data(1, PADDED | END_STREAM, [255, 0])),
            Connection(PROTOCOL_ERROR),
        ),
        ("4.2", "padding without its length", open(data(1, PADDED | END_STREAM, "")), Connection(PROTOCOL_ERROR)),
        ("6.2", "HEADERS of stream 0", get(0, "/"), Connection(PROTOCOL_ERROR)),
        ("6.2", "HEADERS with padding", padded(4, &[0; 4]), Answer(200)),
        ("6.2", "HEADERS with padding longer than the payload", padded(255, &[0; 4]), Connection(PROTOCOL_ERROR)),
        (
            "6.2",
            "HEADERS with padding as long as the payload",
            frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[5, 0, 0, 0, 0]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "4.2",
            "HEADERS with padding without its length",
            frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b""),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.2", "HEADERS with a priority", prioritized(&[0, 0, 0, 3, 15]), Answer(200)),
        (
            "4.2",
            "HEADERS with half a priority",
            frame(HEADERS, PRIORITIZED | END_HEADERS | END_STREAM, 1, &[0; 4]),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.3", "PRIORITY of stream 0", frame(PRIORITY, 0, 0, &[0; 5]), Connection(PROTOCOL_ERROR)),
        // FRAME_SIZE_ERROR of the stream is asked for.
        ("6.3", "PRIORITY that is too short", frame(PRIORITY, 0, 1, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY that is too long", frame(PRIORITY, 0, 1, &[0; 6]), Connection(PROTOCOL_ERROR)),
        ("6.3", "PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 15]), Ignored),
    ]);
}

#[test]
fn control_frames_have_their_stream_and_size() {
    // FRAME_SIZE_ERROR is asked for.
    let size = Connection(PROTOCOL_ERROR);
    check(&[
        ("6.4", "RST_STREAM of stream 0", rst_stream(0, NO_ERROR), Connection(PROTOCOL_ERROR)),
        ("6.4", "RST_STREAM that is too short", [get(1, "/hold"), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), size),
        ("6.4", "RST_STREAM that is too long", [get(1, "/hold"), frame(RST_STREAM, 0, 1, &[0; 5])].concat(), size),
        ("6.5", "SETTINGS of a stream", frame(SETTINGS, 0, 1, b""), Connection(PROTOCOL_ERROR)),
        ("6.5", "SETTINGS that acknowledge with a payload", frame(SETTINGS, ACK, 0, &[0; 6]), size),
        ("6.5", "SETTINGS that are cut", frame(SETTINGS, 0, 0, &[0; 5]), size),
        ("6.5.2", "ENABLE_PUSH of 2", settings(&[(ENABLE_PUSH, 2)]), Connection(PROTOCOL_ERROR)),
        ("6.5.2", "ENABLE_PUSH of 0 and 1", settings(&[(ENABLE_PUSH, 0), (ENABLE_PUSH, 1)]), Ignored),
        ("6.5.2", "the largest INITIAL_WINDOW_SIZE", settings(&[(INITIAL_WINDOW_SIZE, (1 << 31) - 1)]), Ignored),
        // FLOW_CONTROL_ERROR is asked for.
        (
            "6.5.2",
            "a larger INITIAL_WINDOW_SIZE",
            settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE that is too small",
            settings(&[(MAX_FRAME_SIZE, 16_383)]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE that is too large",
            settings(&[(MAX_FRAME_SIZE, 1 << 24)]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE at its bounds",
            settings(&[(MAX_FRAME_SIZE, 16_384), (MAX_FRAME_SIZE, (1 << 24) - 1)]),
            Ignored,
        ),
        ("6.5.2", "settings that nobody knows", settings(&[(0, 0), (0xff, 1), (0xffff, u32::MAX)]), Ignored),
        ("6.5.2", "a table of no size", settings(&[(HEADER_TABLE_SIZE, 0)]), Ignored),
        (
            "6.6",
            "PUSH_PROMISE",
            [get(1, "/hold"), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.6",
            "PUSH_PROMISE of stream 0",
            frame(PUSH_PROMISE, END_HEADERS, 0, &[0, 0, 0, 2, 0x82]),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7", "PING of a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.7", "PING that is too short", frame(PING, 0, 0, &[0; 7]), size),
        ("6.7", "PING that is too long", frame(PING, 0, 0, &[0; 9]), size),
        ("6.7", "PING that answers none of ours", frame(PING, ACK, 0, &[0; 8]), Ignored),
        ("6.8", "GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("4.2", "GOAWAY that is too short", frame(GOAWAY, 0, 0, &[0; 7]), size),
        ("6.9", "WINDOW_UPDATE by nothing", window_update(0, 0), Connection(PROTOCOL_ERROR)),
        (
            "6.9",
            "WINDOW_UPDATE of a stream by nothing",
            [get(1, "/hold"), window_update(1, 0)].concat(),
            // The stream's error is asked for.
            Connection(PROTOCOL_ERROR),
        ),
        ("6.9", "WINDOW_UPDATE that is too short", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1]), size),
        ("6.9", "WINDOW_UPDATE that is too long", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0, 1]), size),
        ("6.9", "WINDOW_UPDATE with the reserved bit", window_update(0, 1 << 31 | 1), Ignored),
        ("6.9.1", "a window beyond its limit", window_update(0, (1 << 31) - 1), Connection(FLOW_CONTROL_ERROR)),
        (
            "6.9.1",
            "a stream's window beyond its limit",
            [get(1, "/hold"), window_update(1, (1 << 31) - 1)].concat(),
            Stream(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2",
            "a stream's window beyond its limit by SETTINGS",
            [get(1, "/hold"), window_update(1, (1 << 31) - 65_536), settings(&[(INITIAL_WINDOW_SIZE, 65_536)])]
                .concat(),
            Connection(FLOW_CONTROL_ERROR),
        ),
    ]);
}

#[test]
fn malformed_requests_are_refused() {
    let malformed = Stream(PROTOCOL_ERROR);
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "test")];
    let without = |name: &str| {
        let rest: Vec<_> = pseudo.into_iter().filter(|field| field.0 != name).collect();
        get_of(&rest)
    };
    let with =
        |name: &str, value: &str| get_of(&pseudo.map(|field| if field.0 == name { (name, value) } else { field }));
    let trailers = |flags: u8, more: &[(&str, &str)]| {
        [post(1, "/read"), data(1, 0, "x"), frame(HEADERS, flags, 1, &fields(more))].concat()
    };
    let long = |flags: u8, length: &[&str]| {
        let lengths: Vec<_> = length.iter().map(|length| ("content-length", *length)).collect();
        frame(HEADERS, END_HEADERS | flags, 1, &[request_fields("POST", "/read"), fields(&lengths)].concat())
    };
    check(&[
        ("8.1", "trailers", trailers(END_HEADERS | END_STREAM, &[("a", "b")]), Answer(200)),
        ("8.1", "trailers that do not end the stream", trailers(END_HEADERS, &[("a", "b")]), malformed),
        (
            "8.1",
            "HEADERS after trailers",
            [trailers(END_HEADERS | END_STREAM, &[("a", "b")]), get(1, "/")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("8.1.1", "the length that was said", [long(0, &["1"]), data(1, END_STREAM, "x")].concat(), Answer(200)),
        (
            "8.1.1",
            "more than the length that was said",
            [long(0, &["1"]), data(1, END_STREAM, "xx")].concat(),
            malformed,
        ),
        (
            "8.1.1",
            "less than the length that was said",
            [long(0, &["2"]), data(1, END_STREAM, "x")].concat(),
            malformed,
        ),
        (
            "8.1.1",
            "less than the length that was said, with trailers",
            [long(0, &["2"]), data(1, 0, "x"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[("a", "b")]))]
                .concat(),
            malformed,
        ),
        ("8.1.1", "nothing of the length that was said", long(END_STREAM, &["1"]), malformed),
        ("8.1.1", "two lengths", long(END_STREAM, &["0", "1"]), malformed),
        ("8.1.1", "a length that is no number", long(END_STREAM, &["-1"]), malformed),
        ("8.2.2", "connection", get_with(&[("connection", "close")]), malformed),
        ("8.2.2", "proxy-connection", get_with(&[("proxy-connection", "close")]), malformed),
        ("8.2.2", "keep-alive", get_with(&[("keep-alive", "1")]), malformed),
        ("8.2.2", "transfer-encoding", get_with(&[("transfer-encoding", "chunked")]), malformed),
        ("8.2.2", "upgrade", get_with(&[("upgrade", "h2c")]), malformed),
        ("8.2.2", "te: gzip", get_with(&[("te", "trailers, gzip")]), malformed),
        ("8.2.2", "te: trailers", get_with(&[("te", "trailers")]), Answer(200)),
        ("8.3", "a pseudo-header field of responses", get_with(&[(":status", "200")]), malformed),
        (
            "8.3",
            "a pseudo-header field of responses, first",
            get_of(&[&[(":status", "200")], &pseudo[..]].concat()),
            malformed,
        ),
        (
            "8.3",
            "a pseudo-header field that was not negotiated",
            get_of(&[(":protocol", "x"), pseudo[0], pseudo[1], pseudo[2], pseudo[3]]),
            malformed,
        ),
        (
            "8.3",
            "a pseudo-header field after others",
            get_of(&[pseudo[0], pseudo[1], pseudo[3], ("a", "b"), pseudo[2]]),
            malformed,
        ),
        ("8.3", ":method twice", get_of(&[pseudo[0], pseudo[0], pseudo[1], pseudo[2], pseudo[3]]), malformed),
        ("8.3", ":scheme twice", get_of(&[pseudo[0], pseudo[1], pseudo[1], pseudo[2], pseudo[3]]), malformed),
        ("8.3", ":path twice", get_of(&[pseudo[0], pseudo[1], pseudo[2], pseudo[2], pseudo[3]]), malformed),
        ("8.3", ":authority twice", get_of(&[pseudo[0], pseudo[1], pseudo[2], pseudo[3], pseudo[3]]), malformed),
        ("8.3.1", "no :method", without(":method"), malformed),
        ("8.3.1", "no :scheme", without(":scheme"), malformed),
        ("8.3.1", "no :path", without(":path"), malformed),
        ("8.3.1", "an empty :path", with(":path", ""), malformed),
        ("8.3.1", "a :path without a slash", with(":path", "x"), malformed),
        ("8.3.1", "a :path of all for another method than OPTIONS", with(":path", "*"), Answer(400)),
        (
            "8.3.1",
            "a :path of all for OPTIONS",
            get_of(&[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "test")]),
            Answer(200),
        ),
        ("8.3.1", "a :scheme that is none", with(":scheme", "/"), malformed),
        ("8.3.1", "no :authority, and no host", without(":authority"), Answer(400)),
        (
            "8.3.1",
            "host in place of :authority",
            get_of(&[pseudo[0], pseudo[1], pseudo[2], ("host", "test")]),
            Answer(200),
        ),
        ("8.3.1", "host that agrees", get_with(&[("host", "test")]), Answer(200)),
        ("8.3.1", "host that differs", get_with(&[("host", "other")]), Answer(400)),
        ("8.3.1", "host twice", get_with(&[("host", "test"), ("host", "test")]), Answer(400)),
        ("8.3.1", ":authority with a user", with(":authority", "me@test"), Answer(400)),
        ("8.3.1", "an empty :authority", with(":authority", ""), malformed),
        ("8.5", "CONNECT", get_of(&[(":method", "CONNECT"), (":authority", "test:80")]), Answer(405)),
        (
            "8.5",
            "CONNECT with :path",
            get_of(&[(":method", "CONNECT"), (":authority", "test:80"), (":path", "/")]),
            malformed,
        ),
        (
            "8.5",
            "CONNECT with :scheme",
            get_of(&[(":method", "CONNECT"), (":authority", "test:80"), (":scheme", "http")]),
            malformed,
        ),
    ]);
}

#[test]
fn names_and_values_have_only_the_characters_that_they_may() {
    let field = |name: &[u8], value: &[u8]| {
        let block = [request_fields("GET", "/"), fields(&[(name, value)])].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
    };
    // The stream's error is asked for; h2 takes it for a failed decompression.
    let malformed = Connection(PROTOCOL_ERROR);
    check(&[
        ("8.2.1", "a name in capitals", field(b"X-a", b"b"), malformed),
        ("8.2.1", "an empty name", field(b"", b"b"), malformed),
        ("8.2.1", "a name with a space", field(b"x a", b"b"), malformed),
        ("8.2.1", "a name with a colon", field(b"x:a", b"b"), malformed),
        ("8.2.1", "a name with NUL", field(b"x\0a", b"b"), malformed),
        ("8.2.1", "a name with DEL", field(b"x\x7fa", b"b"), malformed),
        ("8.2.1", "a name that is not ASCII", field("ä".as_bytes(), b"b"), malformed),
        ("8.2.1", "a value with NUL", field(b"x-a", b"a\0b"), malformed),
        ("8.2.1", "a value with LF", field(b"x-a", b"a\nb"), malformed),
        ("8.2.1", "a value with CR", field(b"x-a", b"a\rb"), malformed),
        ("8.2.1", "a value that starts with a space", field(b"x-a", b" b"), Answer(400)),
        ("8.2.1", "a value that ends with a space", field(b"x-a", b"b "), Answer(400)),
        ("8.2.1", "a value that starts with a tab", field(b"x-a", b"\tb"), Answer(400)),
        ("8.2.1", "a value that ends with a tab", field(b"x-a", b"b\t"), Answer(400)),
        ("8.2.1", "an empty value", field(b"x-a", b""), Answer(200)),
        ("8.2.1", "a value with spaces and tabs within", field(b"x-a", b"a b\tc"), Answer(200)),
        ("8.2.1", "a value that is not ASCII", field(b"x-a", "ä".as_bytes()), Answer(200)),
        ("8.3", "a pseudo-header field that nobody knows", get_with(&[(":x", "y")]), malformed),
    ]);
}

#[test]
fn what_h2_does_not_do() {
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&[(":path", "/other"), ("a", "b")]));
    check(&[
        // Must be malformed; h2 drops the pseudo-header field, and our handlers never see it.
        (
            "8.1",
            "a pseudo-header field in trailers",
            [post(1, "/read"), data(1, 0, "x"), trailers].concat(),
            Answer(200),
        ),
    ]);
}

#[test]
fn the_preface_is_followed_by_settings() {
    let server = serve_rows(server());
    for first in [ping(b"12345678"), get(1, "/"), settings_ack(), window_update(0, 1)] {
        let mut client = server.connect();
        client.send([PREFACE, &first].concat());
        assert_eq!(client.goodbye(), Some(PROTOCOL_ERROR), "{first:?}");
    }
}

#[test]
fn what_is_not_quite_a_preface_is_not_http_2() {
    let not_quite = "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n";
    let both = serve_rows(server());
    let mut client = both.connect();
    client.send(not_quite);
    let answer = client.until_closed();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    let http2 = serve_rows(server().http2_only());
    let mut client = http2.connect();
    client.send(not_quite);
    assert_eq!(client.goodbye(), None, "GOAWAY may be left out");
}

#[test]
fn settings_are_acknowledged_and_pings_answered_in_order() {
    let server = serve_rows(server());
    let mut client = Client::connect_http2(server.addr);
    client.send([settings(&[(INITIAL_WINDOW_SIZE, 1)]), settings(&[]), settings(&[])].concat());
    for _ in 0..3 {
        let ack = client.frame_of(SETTINGS, 0);
        assert_eq!((ack.flags, ack.payload), (ACK, vec![]));
    }
    // An answer is not answered.
    client.send([frame(PING, ACK, 0, b"answered"), ping(b"1 of two"), ping(b"2 of two")].concat());
    for payload in [b"1 of two", b"2 of two"] {
        let pong = client.frame_of(PING, 0);
        assert_eq!((pong.flags, &pong.payload[..]), (ACK, &payload[..]));
    }
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let server = serve_rows(server().http2_max_concurrent_streams(2));
    let mut client = Client::connect_http2(server.addr);
    client.send([get(1, "/hold"), get(3, "/hold"), get(5, "/"), get(7, "/")].concat());
    for stream in [5, 7] {
        assert_eq!(client.frame_of(RST_STREAM, stream).code(), REFUSED_STREAM);
    }
    client.send([rst_stream(1, NO_ERROR), get(9, "/")].concat());
    assert_eq!(client.status_of(9), 200);
}

#[test]
fn clients_are_held_to_the_windows_that_they_have() {
    let open = |bytes: Vec<u8>| [post(1, "/hold"), bytes].concat();
    check_on(
        server().http2_initial_stream_window_size(100),
        &[],
        &[
            ("6.9.1", "all of a stream's window", open(data(1, 0, [0; 100])), Ignored),
            ("6.9.1", "more than a stream's window", open(data(1, 0, [0; 101])), Stream(FLOW_CONTROL_ERROR)),
            (
                "6.1",
                "more than a stream's window with the padding",
                open(data(1, PADDED, [&[99], &[0; 100][..]].concat())),
                Stream(FLOW_CONTROL_ERROR),
            ),
        ],
    );
    check_on(
        server().http2_initial_connection_window_size(65_535),
        &[],
        &[(
            "6.9.1",
            "more than the connection's window",
            open(data(1, 0, [0; 16_384]).repeat(4)),
            Connection(FLOW_CONTROL_ERROR),
        )],
    );
}

/// Sizes of what comes of a body, up to a PING that is answered.
fn sizes(client: &mut Client, stream: u32) -> Vec<usize> {
    client.send(ping(b"so far?!"));
    let frames = std::iter::from_fn(|| client.frame()).take_while(|frame| !frame.is(PING, 0));
    frames.filter(|frame| frame.is(DATA, stream)).map(|frame| frame.payload.len()).collect()
}

#[test]
fn answers_stay_within_the_windows_of_their_clients() {
    let server = serve(|_req: Request, _info| Response::new(Body::new(vec![b'x'; 100_000])));
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 0)]);
    client.send(get(1, "/"));
    client.frame_of(HEADERS, 1);
    assert_eq!(sizes(&mut client, 1), [0; 0], "no window");
    client.send(window_update(1, 3));
    assert_eq!(client.frame_of(DATA, 1).payload.len(), 3);
    // 10 more, and then 8 less than nothing.
    client.send([settings(&[(INITIAL_WINDOW_SIZE, 10)])].concat());
    assert_eq!(client.frame_of(DATA, 1).payload.len(), 10);
    client.send([settings(&[(INITIAL_WINDOW_SIZE, 2)]), window_update(1, 8)].concat());
    assert_eq!(sizes(&mut client, 1), [0; 0], "a window below nothing is filled up first");
    client.send(window_update(1, 5));
    assert_eq!(client.frame_of(DATA, 1).payload.len(), 5);
    // The connection's window is the initial one of 65,535 octets, whatever the settings are.
    client.send(window_update(1, 100_000));
    let mut rest = 65_535 - 18;
    while rest > 0 {
        let length = client.frame_of(DATA, 1).payload.len();
        assert!(length <= rest.min(16_384), "a frame of {length}, {rest} are left");
        rest -= length;
    }
    assert_eq!(sizes(&mut client, 1), [0; 0], "the connection's window is used up");
    client.send(window_update(0, 7));
    // Perhaps in two frames: hyper asks for room for one octet before it takes the next piece of a body.
    let mut more = 0;
    while more < 7 {
        more += client.frame_of(DATA, 1).payload.len();
    }
    assert_eq!((more, sizes(&mut client, 1)), (7, vec![]));
}

#[test]
fn the_last_of_equal_settings_holds() {
    let server = serve_rows(server());
    let mut client = Client::connect(server.addr).start_http2(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 4)]);
    client.send(get(1, "/"));
    assert_eq!(client.frame_of(DATA, 1).payload, b"hell");
}

#[test]
fn a_client_that_says_goodbye_gets_its_answers() {
    let server = serve_rows(server());
    let mut client = Client::connect_http2(server.addr);
    client.send([post(1, "/read"), frame(GOAWAY, 0, 0, &[0; 8])].concat());
    client.send(data(1, END_STREAM, "x"));
    assert_eq!(client.status_of(1), 200);
    assert_eq!(client.goodbye(), Some(NO_ERROR));
}

#[test]
fn cookies_that_were_split_are_one() {
    let server = serve(|req: Request, _info| {
        let cookies: Vec<_> = req.headers().get_all("cookie").iter().map(|cookie| cookie.as_bytes()).collect();
        Response::new(Body::new(cookies.join(&b'|')))
    });
    let mut client = Client::connect_http2(server.addr);
    client.send(get_with(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d; e=f"), ("cookie", "g=h")]));
    assert_eq!(client.frame_of(DATA, 1).payload, b"a=b; c=d; e=f; g=h");
}

#[test]
fn head_is_answered_without_a_body_even_if_it_is_refused() {
    let server = serve_rows(server());
    let mut client = Client::connect_http2(server.addr);
    for (stream, path, status) in [(1, "/", 200), (3, "*", 400)] {
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &request_fields("HEAD", path)));
        let head = client.frame_of(HEADERS, stream);
        assert_eq!((head.status(), head.flags & END_STREAM), (status, END_STREAM));
    }
}
