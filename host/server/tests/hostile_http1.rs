//! What becomes of hostile and borderline HTTP/1 requests, one row each: the bytes, the outcome, and the reading of RFC 9112 or 9110 that
//! it follows. Where hyper or httparse decides otherwise, and only a head parser of our own could tell, the row says what it does and why it
//! stays.
//!
//! An outcome lists the answers in order. `next` is that to the request that follows at once on the same connection: where it is missing, the
//! connection has ended before it. Every row is sent at once and byte by byte, which must make no difference.

mod support;

use std::io::ErrorKind;
use std::thread;

use astra_server::{Body, ConnectionInfo, Request, Response, ResponseBuilder};
use support::{Running, server, start};

/// What follows every row.
const NEXT: &str = "GET /next HTTP/1.1\r\nhost: test\r\n\r\n";

/// Says what it was asked: method, target, the host if it is not `test`, what length it was told, the body, the trailers. A body that is not whole
/// it answers with 200 all the same, as a careless handler would.
#[allow(clippy::needless_pass_by_value, reason = "the signature of a service")]
fn tell(mut request: Request, _info: ConnectionInfo) -> Response {
    let mut text = format!("{} {}", request.method(), request.uri());
    let fields = |name| request.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let hosts: Vec<_> = fields("host").filter(|host| host != "test").collect();
    if !hosts.is_empty() {
        text += &format!(" host={}", hosts.join(";"));
    }
    let lengths: Vec<_> = fields("content-length").collect();
    if !lengths.is_empty() {
        text += &format!(" length={}", lengths.join(";"));
    }
    let told: Vec<_> = fields("x").collect();
    if !told.is_empty() {
        text += &format!(" x={}", told.join(";").escape_debug());
    }
    let mut body = Vec::new();
    for chunk in request.body_mut() {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(error) => {
                text += if error.kind() == ErrorKind::InvalidData { " malformed" } else { " cut" };
                break;
            }
        }
    }
    match body.len() {
        0 => {}
        1..50 => text += &format!(" {:?}", String::from_utf8_lossy(&body)),
        length => text += &format!(" {length} bytes"),
    }
    for (name, value) in request.body_mut().trailers().iter().flatten() {
        text += &format!(" trailer {name}={value:?}");
    }
    ResponseBuilder::new().header("x-text", text.clone()).body(Body::new(text)).expect("valid")
}

/// Sends it in one write or in as many as it has bytes, ends its side, and reads all answers.
fn outcome(server: &Running, request: &[u8], dribbled: bool) -> String {
    let mut client = server.connect();
    let all = [request, NEXT.as_bytes()].concat();
    // The server may have closed by then.
    let _ = if dribbled { all.iter().try_for_each(|byte| client.try_send([*byte])) } else { client.try_send(&all) };
    let _ = client.stream().shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    loop {
        match client.try_head() {
            Ok(head) if head.status == 100 => answers.push("100".to_owned()),
            Ok(head) => {
                let length = head.header("content-length").map_or(0, |length| length.parse().expect("a number"));
                let text = head.header("x-text").map(str::to_owned);
                let has_body = !(answers.is_empty() && request.starts_with(b"HEAD "));
                client.exactly(if has_body { length } else { 0 }).expect("a whole answer");
                answers.push(match text.as_deref() {
                    Some("GET /next") => "next".to_owned(),
                    Some(text) => text.to_owned(),
                    None => head.status.to_string(),
                });
            }
            Err(error) if support::client::is_end(&error) => return answers.join(" | "),
            Err(error) => panic!("{}: {error}", String::from_utf8_lossy(&request[..request.len().min(200)])),
        }
    }
}

struct Row {
    request: Vec<u8>,
    outcome: String,
    reading: &'static str,
}

fn row(request: impl AsRef<[u8]>, outcome: impl Into<String>, reading: &'static str) -> Row {
    Row { request: request.as_ref().to_vec(), outcome: outcome.into(), reading }
}

/// A POST with the given fields (each ended by CRLF) and what follows its head.
fn post(fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    [format!("POST / HTTP/1.1\r\nhost: test\r\n{fields}\r\n").as_bytes(), body.as_ref()].concat()
}

fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    post("transfer-encoding: chunked\r\n", body)
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
}

fn with(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nhost: test\r\n", fields.as_ref(), b"\r\n"].concat()
}

/// Runs every row both ways and shows all that differ, not only the first.
fn check(rows: &[Row]) {
    let server = start(server(), tell);
    let rows: Vec<_> = rows.iter().flat_map(|row| [(row, false), (row, true)]).collect();
    let differing: Vec<String> = thread::scope(|scope| {
        let server = &server;
        let run = |(row, dribbled): &(&Row, bool)| {
            let found = outcome(server, &row.request, *dribbled);
            (found != row.outcome).then(|| {
                let how = if *dribbled { "byte by byte" } else { "at once" };
                let request = String::from_utf8_lossy(&row.request[..row.request.len().min(160)]).into_owned();
                format!(
                    "{how}: {request:?}\n    expected {:?}\n    found    {found:?}\n    ({})\n",
                    row.outcome, row.reading
                )
            })
        };
        let threads: Vec<_> = rows
            .chunks(rows.len().div_ceil(8))
            .map(|rows| scope.spawn(move || rows.iter().filter_map(run).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no row panics")).collect()
    });
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn content_lengths_are_decimal_and_agree() {
    let length = |lengths: &str| post(lengths, "abc");
    check(&[
        row(length("content-length: 3\r\n"), "POST / length=3 \"abc\" | next", "6.2: decimal digits"),
        row(length("content-length:3\r\n"), "POST / length=3 \"abc\" | next", "5: the white space is optional"),
        row(
            length("Content-Length:\t 3 \t\r\n"),
            "POST / length=3 \"abc\" | next",
            "5: spaces and tabs around a value are none of it",
        ),
        row(
            length("content-length: 003\r\n"),
            "POST / length=003 \"abc\" | next",
            "9110 8.6: 1*DIGIT, leading zeros are decimal",
        ),
        row(
            length("content-length: 3\r\ncontent-length: 3\r\n"),
            "POST / length=3 \"abc\" | next",
            "9110 8.6: equal values may count once",
        ),
        row(
            length("content-length: 3\r\ncontent-length: 03\r\n"),
            "POST / length=3 \"abc\" | next",
            "9110 8.6: the same number",
        ),
        row(length("content-length: 3\r\ncontent-length: 4\r\n"), "400", "6.3 item 5: differing values"),
        row(
            length("content-length: 4\r\nx: y\r\ncontent-length: 3\r\n"),
            "400",
            "6.3 item 5: differing values, wherever they stand",
        ),
        row(length("content-length: 3\r\ncontent-length: x\r\n"), "400", "6.3 item 5: one of them invalid"),
        row(length("content-length: 3, 3\r\n"), "400", "6.3 item 5: a list of equal values may be refused"),
        row(length("content-length: 3, 4\r\n"), "400", "6.3 item 5: a list"),
        row(length("content-length: 3,\r\n"), "400", "9110 8.6: not digits"),
        row(length("content-length: +3\r\n"), "400", "9110 8.6: no sign"),
        row(length("content-length: -3\r\n"), "400", "9110 8.6: no sign"),
        row(length("content-length: -0\r\n"), "400", "9110 8.6: no sign"),
        row(length("content-length: 0x3\r\n"), "400", "9110 8.6: decimal"),
        row(length("content-length: 3.0\r\n"), "400", "9110 8.6: digits only"),
        row(length("content-length: 3e0\r\n"), "400", "9110 8.6: digits only"),
        row(length("content-length: 1 2\r\n"), "400", "9110 8.6: no space within"),
        row(length("content-length: 3;q=1\r\n"), "400", "9110 8.6: no parameters"),
        row(length("content-length: \"3\"\r\n"), "400", "9110 8.6: not quoted"),
        row(length("content-length: \u{663}\r\n"), "400", "9110 8.6: ASCII digits"),
        row(length("content-length:\r\n"), "400", "9110 8.6: at least one digit"),
        row(
            length("content-length: 18446744073709551615\r\n"),
            "431",
            "9110 8.6: the largest of 64 bits, and the one before, mean something else to hyper, which refuses them as too large",
        ),
        row(length("content-length: 18446744073709551616\r\n"), "400", "9110 8.6: overflow is no small number"),
        row(length("content-length: 18446744073709551619\r\n"), "400", "9110 8.6: overflow is not 3"),
        row(
            length(&format!("content-length: {}3\r\n", "0".repeat(30))),
            "POST / length=0000000000000000000000000000003 \"abc\" | next",
            "9110 8.6",
        ),
        row(length("content-length : 3\r\n"), "400", "5.1: no space before the colon"),
        row(length("content-length\t: 3\r\n"), "400", "5.1: no white space before the colon"),
        row(
            length("content_length: 3\r\n"),
            "POST / | abcGET /next",
            "another field: no body, and what follows is read as the next request, as it must be",
        ),
        row(
            length("content-length: 0\r\n"),
            "POST / length=0 | abcGET /next",
            "6.3: what follows is the next request, of a strange method",
        ),
        row(
            post("content-length: 4\r\n", "abc"),
            "POST / length=4 \"abcG\" | ET /next",
            "6.3: the length says where the body ends, whatever stands there",
        ),
        row(
            post("content-length: 1000\r\n", "abc"),
            "POST / length=1000 cut \"abcGET /next HTTP/1.1\\r\\nhost: test\\r\\n\\r\\n\"",
            "8: incomplete",
        ),
        row("POST / HTTP/1.1\r\nhost: test\r\n\r\n", "POST / | next", "6.3 item 7: without either, no body"),
        row(
            "GET / HTTP/1.1\r\nhost: test\r\n\r\nbody",
            "GET / | bodyGET /next",
            "6.3 item 7: bytes after a GET are the next request",
        ),
        row(
            "GET / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc",
            "GET / length=3 \"abc\" | next",
            "9110 9.3.1: a GET may have content, and it is framed",
        ),
        row(
            "HEAD / HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\n\r\nabc",
            "HEAD / length=3 \"abc\" | next",
            "the same of HEAD",
        ),
        row(
            [post("content-length: 3\r\n", "abc"), post("content-length: 2\r\n", "de")].concat(),
            "POST / length=3 \"abc\" | POST / length=2 \"de\" | next",
            "9.3.2: pipelined with their bodies",
        ),
        row(
            "POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nabc",
            "POST / length=3 \"abc\"",
            "9.3: HTTP/1.0 does not persist by default",
        ),
        row(
            "POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc",
            "POST / length=3 \"abc\" | next",
            "9.3: unless it asks to",
        ),
        row("POST / HTTP/1.0\r\n\r\n", "POST /", "6.3 item 7: a request without a length has no body, in HTTP/1.0 too"),
    ]);
}

#[test]
fn chunks_have_a_hexadecimal_size_and_end_with_crlf() {
    let ok = "POST / \"abc\" | next";
    let bad = "400";
    check(&[
        row(chunked("3\r\nabc\r\n0\r\n\r\n"), ok, "7.1"),
        row(chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), ok, "7.1"),
        row(chunked("0003\r\nabc\r\n0000\r\n\r\n"), ok, "7.1: leading zeros"),
        row(
            chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
            "POST / \"01234567890123456789\" | next",
            "7.1: hexadecimal of either case",
        ),
        row(chunked("0\r\n\r\n"), "POST / | next", "7.1: empty"),
        row(chunked("+3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no sign"),
        row(chunked("-3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no sign"),
        row(chunked("0x3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no prefix"),
        row(chunked("x3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no prefix"),
        row(chunked("3h\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no suffix"),
        row(chunked("g\r\nabc\r\n0\r\n\r\n"), bad, "7.1: hexadecimal"),
        row(chunked("1_0\r\nabc\r\n0\r\n\r\n"), bad, "7.1: digits only"),
        row(chunked("3.0\r\nabc\r\n0\r\n\r\n"), bad, "7.1: digits only"),
        row(chunked("\r\nabc\r\n0\r\n\r\n"), bad, "7.1: at least one digit"),
        row(chunked(";x\r\nabc\r\n0\r\n\r\n"), bad, "7.1: at least one digit"),
        row(chunked(" 3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no space before the size"),
        row(chunked("\t3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no tab before the size"),
        row(
            chunked("3 \r\nabc\r\n0\r\n\r\n"),
            ok,
            "7.1.1: BWS belongs before a `;`, which hyper does not insist on; it moves no boundary",
        ),
        row(chunked("3 \t \r\nabc\r\n0\r\n\r\n"), ok, "the same"),
        row(chunked("3 3\r\nabc\r\n0\r\n\r\n"), bad, "7.1: no digits after white space"),
        row(chunked("3\x0b\r\nabc\r\n0\r\n\r\n"), bad, "7.1: other white space is none"),
        row(chunked("3\0\r\nabc\r\n0\r\n\r\n"), bad, "7.1: NUL"),
        row(chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), bad, "7.1: anticipate overflow: this is not 3"),
        row(
            chunked("ffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
            "POST / cut \"abc\\r\\n0\\r\\n\\r\\nGET /next HTTP/1.1\\r\\nhost: test\\r\\n\\r\\n\"",
            "7.1: the largest of 64 bits is a size",
        ),
        row(chunked("ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"), bad, "7.1: anticipate overflow"),
        row(chunked("3\nabc\r\n0\r\n\r\n"), bad, "7.1: a size line ends with CRLF; the leniency of 2.2 is for heads"),
        row(chunked("3\rabc\r\n0\r\n\r\n"), bad, "7.1: a bare CR"),
        row(chunked("3\r\r\nabc\r\n0\r\n\r\n"), bad, "7.1: CR CR LF"),
        row(chunked("3\r\nabc\n0\r\n\r\n"), bad, "7.1: a chunk's data ends with CRLF"),
        row(chunked("3\r\nabc\r0\r\n\r\n"), bad, "7.1: a bare CR after the data"),
        row(chunked("3\r\nabc0\r\n\r\n"), bad, "7.1: no CRLF after the data"),
        row(chunked("3\r\nabcd\r\n0\r\n\r\n"), bad, "7.1: more data than the size says"),
        row(chunked("3\r\nab\r\n0\r\n\r\n"), bad, "7.1: less data than the size says"),
        row(chunked("3\r\nabc\r\n0\r\n"), bad, "7.1: the end is missing: what follows is no trailer field"),
        row(chunked("3\r\nabc\r\n"), bad, "7.1: the last chunk is missing: what follows is no size"),
        row(chunked("3\r\nabc\r\n0\n\n"), bad, "7.1: bare LFs end nothing"),
        row(chunked("3\r\nabc\r\n0\r\n\n"), bad, "7.1: the end is CRLF: what follows is neither lost nor answered"),
        row(chunked("3\r\nabc\r\n0\r\n\rX"), bad, "7.1: the end is CRLF"),
    ]);
}

#[test]
fn chunk_extensions_are_ignored_and_trailers_are_fields() {
    let ok = "POST / \"abc\" | next";
    let bad = "400";
    let trailers = |trailers: &str| chunked(format!("3\r\nabc\r\n0\r\n{trailers}\r\n"));
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    check(&[
        row(chunked("3;a\r\nabc\r\n0;b\r\n\r\n"), ok, "7.1.1: unknown extensions are ignored"),
        row(chunked("3;a=b;c=\"d\"\r\nabc\r\n0\r\n\r\n"), ok, "7.1.1"),
        row(chunked("3 ; a = b\r\nabc\r\n0\r\n\r\n"), ok, "7.1.1: bad white space is tolerated"),
        row(chunked("3;a=\"b;c\\\"d\"\r\nabc\r\n0\r\n\r\n"), ok, "7.1.1: quoted strings"),
        row(
            chunked("3;\r\nabc\r\n0\r\n\r\n"),
            ok,
            "7.1.1: a name is missing, which hyper does not look at; it moves no boundary",
        ),
        row(chunked("3;a=\"b\r\nabc\r\n0\r\n\r\n"), ok, "7.1.1: an open quote: a CRLF ends the line, in quotes or not"),
        row(
            chunked("3;a=\"\r\nabc\r\n0\r\n\r\n\"\r\n"),
            "POST / \"abc\" | 400",
            "the same: a quoted CRLF hides nothing",
        ),
        row(chunked("3;a\nabc\r\n0\r\n\r\n"), bad, "7.1.1: a bare LF in an extension"),
        row(chunked("3;a=\"b\nc\"\r\nabc\r\n0\r\n\r\n"), bad, "7.1.1: a bare LF, quoted"),
        row(chunked("3;a\rb\r\nabc\r\n0\r\n\r\n"), bad, "2.2: a bare CR in an extension"),
        row(chunked("3;a=\"\r\"\r\nabc\r\n0\r\n\r\n"), bad, "2.2: a bare CR, quoted"),
        row(
            chunked("3;a\0b\r\nabc\r\n0\r\n\r\n"),
            ok,
            "7.1.1: not a token, which hyper does not look at; it moves no boundary",
        ),
        row(chunked(format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(10_000))), ok, "7.1.1: limited, to 16 KiB in all"),
        row(
            chunked(format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(20_000))),
            bad,
            "7.1.1: a server ought to limit them",
        ),
        row(chunked("1;xxxxxxxxx\r\na\r\n".repeat(2_000) + "0\r\n\r\n"), bad, "7.1.1: the same in many chunks"),
        row(trailers("a: b\r\n"), "POST / \"abc\" trailer a=\"b\" | next", "7.1.2"),
        row(trailers("a: b\r\na: c\r\n"), "POST / \"abc\" trailer a=\"b\" trailer a=\"c\" | next", "7.1.2"),
        row(
            trailers("content-length: 7\r\ntransfer-encoding: chunked\r\nhost: evil\r\n"),
            "POST / \"abc\" trailer content-length=\"7\" trailer transfer-encoding=\"chunked\" trailer host=\"evil\" | next",
            "9110 6.5.1: trailers are kept apart from the fields of the head, and these have no effect",
        ),
        row(
            trailers("connection: close\r\nexpect: 100-continue\r\n"),
            "POST / \"abc\" trailer connection=\"close\" trailer expect=\"100-continue\" | next",
            "9110 6.5.1: the same",
        ),
        row(trailers("no colon\r\n"), bad, "5: no field line"),
        row(trailers("a : b\r\n"), bad, "5.1: no space before the colon"),
        row(trailers(" a: b\r\n"), bad, "5: no space before the first field"),
        row(trailers("a: b\r\n c\r\n"), bad, "5.2: obs-fold"),
        row(trailers("a: b\rc\r\n"), bad, "2.2: a bare CR"),
        row(trailers("a: b\0\r\n"), bad, "9110 5.5: NUL"),
        row(
            trailers("a: b\n"),
            "POST / \"abc\" trailer a=\"b\"",
            "2.2: a bare LF ends the line for the parser of fields, but not for the search for their end: what follows, up to an empty line, is lost, and so the connection ends",
        ),
        row(
            trailers("a: b\n\nGET /lost HTTP/1.1\r\nhost: test\r\n"),
            "POST / \"abc\" trailer a=\"b\"",
            "the same: nobody gets the answer to another's request",
        ),
        row(trailers("a: b\r\n\nGET /lost HTTP/1.1\r\nhost: test\r\n"), "POST / \"abc\" trailer a=\"b\"", "the same"),
        row(trailers("a: b\n\r\nGET /lost HTTP/1.1\r\nhost: test\r\n"), "POST / \"abc\" trailer a=\"b\"", "the same"),
        row(trailers(": b\r\n"), bad, "5: no name"),
        row(
            trailers("a: b\r\n").repeat(2),
            "POST / \"abc\" trailer a=\"b\" | POST / \"abc\" trailer a=\"b\" | next",
            "7.1.2: then comes the next request",
        ),
        row(trailers(&many), bad, "9110 5.4: too many"),
        row(trailers(&format!("a: {}\r\n", "x".repeat(70_000))), bad, "9110 5.4: too large"),
        row(trailers("GET /smuggled HTTP/1.1\r\nhost: test\r\n"), bad, "7.1.2: a request is no trailer"),
    ]);
}

#[test]
fn chunked_is_the_one_transfer_coding() {
    let te = |fields: &str| post(fields, "3\r\nabc\r\n0\r\n\r\n");
    let ok = "POST / \"abc\" | next";
    check(&[
        row(te("transfer-encoding: chunked\r\n"), ok, "6.1"),
        row(te("Transfer-Encoding: CHUNKED\r\n"), ok, "7: names of codings are case-insensitive"),
        row(te("transfer-encoding:\tchunked\t\r\n"), ok, "5: tabs around a value are none of it"),
        row(te("transfer-encoding: \t chunked \r\n"), ok, "5"),
        row(te("transfer-encoding: ,chunked\r\n"), ok, "9110 5.6.1.2: empty elements of a list are ignored"),
        row(
            te("transfer-encoding: chunked,\r\n"),
            "400",
            "9110 5.6.1.2: the same, but hyper wants the last element to be chunked: refused, which is safe",
        ),
        row(te("transfer-encoding: \r\ntransfer-encoding: chunked\r\n"), ok, "the same"),
        row(
            te("transfer-encoding: chunked\r\ncontent-length: 3\r\n"),
            "POST / \"abc\"",
            "6.3 item 3: chunked wins, the length is removed, and 6.1: the connection closes",
        ),
        row(te("content-length: 3\r\ntransfer-encoding: chunked\r\n"), "POST / \"abc\"", "the same in the other order"),
        row(
            te("content-length: 3\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n"),
            "POST / \"abc\"",
            "the same",
        ),
        row(te("content-length: x\r\ntransfer-encoding: chunked\r\n"), "400", "6.3: an invalid length is one"),
        row(te("transfer-encoding: chunked\r\ncontent-length: x\r\n"), "POST / \"abc\"", "6.3 item 3: chunked wins"),
        row(te("transfer-encoding: identity\r\n"), "400", "7: no longer a coding; 6.3 item 4: chunked is not the last"),
        row(te("transfer-encoding: chunked, identity\r\n"), "400", "6.3 item 4: chunked is not the last"),
        row(te("transfer-encoding: identity, chunked\r\n"), "501", "6.1: a coding that we do not know"),
        row(te("transfer-encoding: gzip\r\n"), "400", "6.3 item 4: chunked is not the last"),
        row(te("transfer-encoding: gzip, chunked\r\n"), "501", "6.1: a coding that we do not know"),
        row(te("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n"), "501", "the same in two lines"),
        row(te("transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n"), "400", "6.3 item 4"),
        row(te("transfer-encoding: chunked, chunked\r\n"), "400", "6.1: chunked is applied once"),
        row(te("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), "400", "6.1: chunked is applied once"),
        row(te("transfer-encoding: xchunked\r\n"), "400", "6.3 item 4: another coding"),
        row(te("transfer-encoding: chunkedx\r\n"), "400", "6.3 item 4: another coding"),
        row(te("transfer-encoding: x chunked\r\n"), "400", "6.3 item 4: not a list"),
        row(te("transfer-encoding: \"chunked\"\r\n"), "400", "6.3 item 4: not quoted"),
        row(te("transfer-encoding: chunked;q=1\r\n"), "400", "7: chunked has no parameters"),
        row(te("transfer-encoding: chun\tked\r\n"), "400", "6.3 item 4"),
        row(te("transfer-encoding: \x0bchunked\r\n"), "400", "9110 5.5: a vertical tab is no white space"),
        row(te("transfer-encoding: \u{a0}chunked\r\n"), "400", "nor is another character that looks like one"),
        row(te("transfer-encoding:\r\n"), "400", "6.3 item 4: no coding at all"),
        row(te("transfer-encoding : chunked\r\n"), "400", "5.1: no space before the colon"),
        row(te("transfer-encoding:\r\n chunked\r\n"), "400", "5.2: obs-fold"),
        row(
            te("transfer_encoding: chunked\r\n"),
            "POST / | 400",
            "another field: no body, and what follows is no request",
        ),
        row(
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            "6.1: HTTP/1.0 has no transfer codings",
        ),
        row(
            "POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
            "400",
            "6.1: faulty framing",
        ),
        row(
            "GET / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "GET / \"abc\" | next",
            "9110 9.3.1: a GET may have content, and it is framed",
        ),
    ]);
}

#[test]
fn a_field_is_a_line_with_a_name_and_a_colon() {
    let ok = "GET / | next";
    let bad = "400";
    let x = |value: &[u8]| with([b"x: ", value, b"\r\n"].concat());
    check(&[
        row("GET / HTTP/1.1\nhost: test\n\n", ok, "2.2: a bare LF may end a line"),
        row("GET / HTTP/1.1\r\nhost: test\n\r\n", ok, "2.2"),
        row("GET / HTTP/1.1\nhost: test\r\n\n", ok, "2.2"),
        row("GET / HTTP/1.1\rhost: test\r\n\r\n", bad, "2.2: a bare CR"),
        row("GET / HTTP/1.1\r\nhost: test\r\r\n\r\n", bad, "2.2: a bare CR"),
        row("GET / HTTP/1.1\r\nhost: test\rx: y\r\n\r\n", bad, "2.2: a bare CR ends no line"),
        row("GET / HTTP/1.1\r\nhost: test\r\n\rX\r\n", bad, "2.2: a bare CR"),
        row("GET\r/ HTTP/1.1\r\nhost: test\r\n\r\n", bad, "2.2: a bare CR separates nothing"),
        row("\rGET / HTTP/1.1\r\nhost: test\r\n\r\n", bad, "2.2: a bare CR"),
        row(x(b"a\rb"), bad, "2.2: a bare CR"),
        row(x(b"a\0b"), bad, "9110 5.5: NUL"),
        row(x(b"a\x01b"), bad, "9110 5.5: control characters may be refused"),
        row(x(b"a\x7fb"), bad, "9110 5.5: DEL"),
        row(x(b"a\tb"), "GET / x=a\\tb | next", "9110 5.5: a tab within is part of it"),
        row(x(b"  a  "), "GET / x=a | next", "5: white space around is not"),
        row(x(b""), "GET / x= | next", "5: empty"),
        row(x(b"\xc3\xa4\xff"), "GET / x=ä\u{fffd} | next", "9110 5.5: obs-text is opaque"),
        row(with("x : y\r\n"), bad, "5.1: no space before the colon"),
        row(with("x\t: y\r\n"), bad, "5.1: no tab either"),
        row(with("x y: z\r\n"), bad, "5.1: a name is a token"),
        row(with(": y\r\n"), bad, "5: a name has characters"),
        row(with("x\r\n"), bad, "5: a field has a colon"),
        row(with("x\0y: z\r\n"), bad, "5: NUL in a name"),
        row(with("x(y): z\r\n"), bad, "5: a name is a token"),
        row(with("\u{e4}: z\r\n"), bad, "5: a name is ASCII"),
        row(with("!#$%&'*+-.^_`|~09azAZ: y\r\n"), ok, "9110 5.6.2: all of a token"),
        row(with("x: a\r\n b\r\n"), bad, "5.2: obs-fold"),
        row(with("x: a\r\n\tb\r\n"), bad, "5.2: obs-fold with a tab"),
        row(with("x: a\r\n \r\n"), bad, "5.2: obs-fold of nothing"),
        row("GET / HTTP/1.1\r\n host: test\r\n\r\n", bad, "2.2: white space before the first field"),
        row("GET / HTTP/1.1\r\n\thost: test\r\n\r\n", bad, "2.2: white space before the first field"),
        row("GET / HTTP/1.1\r\n \r\nhost: test\r\n\r\n", bad, "2.2: white space before the first field"),
        row("\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n", ok, "2.2: an empty line before a request is ignored"),
        row("\nGET / HTTP/1.1\r\nhost: test\r\n\r\n", ok, "2.2: ended by a bare LF too"),
        row(
            "\r\n".repeat(1_000) + "GET / HTTP/1.1\r\nhost: test\r\n\r\n",
            ok,
            "2.2: at least one; as many as a head may have bytes",
        ),
        row("\r\n".repeat(40_000) + "GET / HTTP/1.1\r\nhost: test\r\n\r\n", "431", "and not more"),
        row(" GET / HTTP/1.1\r\nhost: test\r\n\r\n", bad, "3: no space before the method"),
        row("\tGET / HTTP/1.1\r\nhost: test\r\n\r\n", bad, "3: no tab before the method"),
        row(with("connection: close\r\n"), "GET /", "9.6: what follows is not answered"),
        row(with("connection: Close\r\n"), "GET /", "9110 7.6.1: case-insensitive"),
        row(with("connection: x, close\r\n"), "GET /", "9110 7.6.1: a list"),
        row(with("connection: close\r\nconnection: keep-alive\r\n"), "GET /", "9.6: close wins"),
        row(with("connection: keep-alive, close\r\n"), "GET /", "9.6: close wins"),
        row(with("connection: closed\r\n"), ok, "9110 7.6.1: another option"),
        row("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", ok, "9.3"),
    ]);
}

#[test]
fn a_request_line_is_a_method_a_target_and_a_version() {
    let bad = "400";
    let line = |line: &[u8]| [line, b"\r\nhost: test\r\n\r\n"].concat();
    check(&[
        row("GET /\r\n", bad, "3: HTTP/0.9 has no version: what follows is no field"),
        row("GET /\r\n\r\n", bad, "3: HTTP/0.9"),
        row("GET\r\n\r\n", bad, "3"),
        row(line(b"GET / HTTP/2.0"), bad, "2.3: not a version that is spoken so (hyper: 400, where 505 would do too)"),
        row(line(b"GET / HTTP/3.0"), bad, "2.3: the same"),
        row(
            line(b"GET / HTTP/1.2"),
            bad,
            "2.5 of 9110: a higher minor version ought to be read as the highest known, httparse knows 1.0 and 1.1 only",
        ),
        row(line(b"GET / HTTP/0.9"), bad, "2.3"),
        row(line(b"GET / HTTP/1"), bad, "2.3: a digit, a point and a digit"),
        row(line(b"GET / HTTP/1.10"), bad, "2.3: one digit"),
        row(line(b"GET / HTTP/01.1"), bad, "2.3: one digit"),
        row(line(b"GET / http/1.1"), bad, "2.3: case-sensitive"),
        row(line(b"GET / HTTP/ 1.1"), bad, "2.3"),
        row(line(b"GET / HTTP/1.1 "), bad, "3: white space after the version"),
        row(line(b"GET / HTTPS/1.1"), bad, "2.3"),
        row(line(b"GET  / HTTP/1.1"), bad, "3: one space"),
        row(line(b"GET /  HTTP/1.1"), bad, "3: one space"),
        row(line(b"GET\t/ HTTP/1.1"), bad, "3: a space"),
        row(line(b"GET /a b HTTP/1.1"), bad, "3.2: no white space in a target"),
        row(line(b"GET HTTP/1.1"), bad, "3: no target"),
        row(line(b"get / HTTP/1.1"), "get / | next", "9110 9.1: methods are case-sensitive: another method"),
        row(line(b"G@T / HTTP/1.1"), bad, "9110 9.1: a token"),
        row(line(b"G\0T / HTTP/1.1"), bad, "9110 9.1: a token"),
        row(line(b"G\xc4T / HTTP/1.1"), bad, "9110 9.1: a token"),
        row(
            line(&[b"M".repeat(1_000), b" / HTTP/1.1".to_vec()].concat()),
            format!("{} / | next", "M".repeat(1_000)),
            "9110 9.1: any token",
        ),
        row(
            line(&[b"M".repeat(70_000), b" / HTTP/1.1".to_vec()].concat()),
            "431",
            "3: longer than any it implements: 501 is a SHOULD, a head too large is 431 here",
        ),
        row(line(b"TRACE / HTTP/1.1"), "405", "9110 9.3.8: reflects what it is sent, so not offered"),
        row(line(b"CONNECT test:80 HTTP/1.1"), "405", "9110 9.3.6: not a proxy"),
        row(line(b"CONNECT / HTTP/1.1"), "405", "9110 9.3.6"),
        row(line(b"PRI * HTTP/2.0"), bad, "9113 3.4: a preface that is none"),
    ]);
}

#[test]
fn a_target_has_a_known_form_and_goes_with_one_valid_host() {
    let bad = "400";
    let host = |hosts: &str| format!("GET / HTTP/1.1\r\n{hosts}\r\n");
    let line = |line: &[u8]| [line, b"\r\nhost: test\r\n\r\n"].concat();
    let long = "a".repeat(60_000);
    check(&[
        row(host(""), bad, "3.2: no Host"),
        row(host("host: test\r\nhost: test\r\n"), bad, "3.2: two"),
        row(host("host: test\r\nHost: evil\r\n"), bad, "3.2: two"),
        row(host("host:\r\n"), "GET / host= | next", "3.2: empty, as a target without an authority has it"),
        row(host("host: a b\r\n"), bad, "3.2: invalid"),
        row(host("host: a,b\r\n"), "GET / host=a,b | next", "3986 3.2.2: a comma may stand in a name"),
        row(
            host("host: a%41\r\n"),
            bad,
            "3986 3.2.2: so may a percent-encoding, which the http crate does not take; no name in the DNS has one",
        ),
        row(host("host: []\r\n"), bad, "3986 3.2.2: an address"),
        row(host("host: [a]\r\n"), bad, "3986 3.2.2: an address"),
        row(host("host: [::1%25lo]\r\n"), bad, "6874 4: a zone means nothing to others"),
        row(host("host: user@test\r\n"), bad, "9110 4.2.4: user information"),
        row(host("host: user:pw@test\r\n"), bad, "9110 4.2.4: user information"),
        row(host("host: http://test/\r\n"), bad, "9110 7.2: not a URI"),
        row(host("host: test/path\r\n"), bad, "9110 7.2"),
        row(host("host: test?x\r\n"), bad, "9110 7.2"),
        row(host("host: test#x\r\n"), bad, "9110 7.2"),
        row(host("host: test\\x\r\n"), bad, "9110 7.2"),
        row(host("host: test:80:80\r\n"), bad, "9110 7.2"),
        row(host("host: test:x\r\n"), bad, "9110 7.2: a port is digits"),
        row(host("host: test:-1\r\n"), bad, "9110 7.2: a port is digits"),
        row(host("host: test:65536\r\n"), bad, "9110 7.2: no such port"),
        row(host("host: :80\r\n"), bad, "9110 4.2.1: an empty name"),
        row(host("host: ::1\r\n"), bad, "3986 3.2.2: brackets"),
        row(host("host: [::1\r\n"), bad, "3986 3.2.2: brackets"),
        row(host("host: [::1]x\r\n"), bad, "3986 3.2.2"),
        row(host("host: \u{e4}\r\n"), bad, "3986 3.2.2: ASCII"),
        row(host("host: a\tb\r\n"), bad, "3.2: invalid"),
        row(host("host: test:80\r\n"), "GET / host=test:80 | next", "9110 7.2"),
        row(host("host: [::1]:80\r\n"), "GET / host=[::1]:80 | next", "9110 7.2"),
        row("GET / HTTP/1.0\r\n\r\n", "GET /", "3.2: HTTP/1.0 need not have one"),
        row("GET / HTTP/1.0\r\nhost: a b\r\n\r\n", bad, "3.2: an invalid one is refused in any version"),
        row("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", bad, "3.2: so are two"),
        row(
            get("http://other/a?b"),
            "GET http://other/a?b host=other | next",
            "3.2.2: the authority of the target replaces Host",
        ),
        row(get("http://other:8080/"), "GET http://other:8080/ host=other:8080 | next", "3.2.2"),
        row(get("HTTP://other/"), "GET http://other/ host=other | next", "3.2.2: a scheme is case-insensitive"),
        row(get("http://other"), "GET http://other/ host=other | next", "3.2.2: an empty path"),
        row(get("https://other/"), "GET https://other/ host=other | next", "3.2.2"),
        row("GET http://other/ HTTP/1.1\r\n\r\n", bad, "3.2: Host is required in this form too"),
        row(get("http://user@other/"), bad, "9110 4.2.4: user information"),
        row(get("http:///a"), bad, "9110 4.2.1: no host"),
        row(get("http://"), bad, "9110 4.2.1: no host"),
        row(get("http://other:x/"), bad, "3986 3.2.3: a port is digits"),
        row(get("http://[::1/"), bad, "3986 3.2.2"),
        row(get("http:/a"), bad, "3.2: no form of a target"),
        row(get("test:80"), bad, "3.2.3: authority-form is CONNECT's"),
        row(get("test"), bad, "3.2.3: authority-form is CONNECT's"),
        row(get("*"), bad, "3.2.4: asterisk-form is for OPTIONS"),
        row(get("a/b"), bad, "3.2.1: a path begins with a slash"),
        row(get("?a"), bad, "3.2.1: a path begins with a slash"),
        row(line(b"OPTIONS * HTTP/1.1"), "OPTIONS * | next", "3.2.4"),
        row(line(b"HEAD * HTTP/1.1"), bad, "3.2.4"),
        row(line(b"OPTIONS *a HTTP/1.1"), bad, "3.2.4"),
        row(line(b"OPTIONS ** HTTP/1.1"), bad, "3.2.4"),
        row(get("/a%20b?c%00d"), "GET /a%20b?c%00d | next", "3986 2.1: left as they are"),
        row(get("/%"), "GET /% | next", "3986 2.1: half a percent-encoding, which is the handler's to judge"),
        row(get("/%zz"), "GET /%zz | next", "the same"),
        row(get("//a"), "GET //a | next", "3.2.1: an empty segment, no authority"),
        row(get("/../../etc/passwd"), "GET /../../etc/passwd | next", "3986 5.2.4: dots are the handler's to remove"),
        row(
            get("/a#b"),
            "GET /a | next",
            "3.2.1: no fragment in a target; the http crate drops it before anybody sees it, and it selects nothing",
        ),
        row(
            get("/{|}\"'"),
            "GET /{|}\"' | next",
            "3986: not allowed raw, but clients send them, and nothing is split there",
        ),
        row(get("/<"), bad, "3986: not allowed raw"),
        row(get("/>"), bad, "3986: not allowed raw"),
        row(get("/\\^"), "GET /\\^ | next", "the same; whether a backslash is a slash is the handler's to judge"),
        row(get("/`"), bad, "3986: not allowed raw"),
        row(get("/\u{e4}"), "GET /\u{e4} | next", "3986: raw bytes beyond ASCII: clients send UTF-8"),
        row(line(b"GET /\xff HTTP/1.1"), bad, "3986: not even UTF-8"),
        row(line(b"GET /\x7f HTTP/1.1"), bad, "3986: DEL"),
        row(line(b"GET /\0 HTTP/1.1"), bad, "3986: NUL"),
        row(line(b"GET /a\tb HTTP/1.1"), bad, "3.2: white space"),
        row(get(&format!("/{long}")), format!("GET /{long} | next"), "3: at least 8,000 octets"),
        row(
            get(&format!("/{}", "a".repeat(70_000))),
            "431",
            "3: 414 is a MUST for a target that is longer than we parse, but the bound is that of the head (64 KiB): hyper tells no more",
        ),
    ]);
}

#[test]
fn heads_that_are_too_large_are_431() {
    let many = |fields: usize| (0..fields).map(|i| format!("y-{i}: 1\r\n")).collect::<String>();
    check(&[
        row(with(many(99)), "GET / | next", "9110 5.4: 100 fields with Host"),
        row(with(many(100)), "431", "6585 5: one more"),
        row(with(format!("{}: y\r\n", "x".repeat(1_000))), "GET / | next", "5"),
        row(with(format!("{}: y\r\n", "x".repeat(70_000))), "431", "6585 5"),
        row(with(format!("y: {}\r\n", "x".repeat(60_000))), "GET / | next", "5"),
        row(with(format!("y: {}\r\n", "x".repeat(70_000))), "431", "6585 5"),
        row(with(format!("y: {}\r\n", "x".repeat(500)).repeat(200)), "431", "6585 5: together"),
    ]);
}

#[test]
fn expectations_are_met_or_ignored_and_upgrades_are_not_taken_up() {
    let expect = |expect: &str| post(&format!("expect: {expect}\r\ncontent-length: 3\r\n"), "abc");
    check(&[
        row(
            expect("100-continue"),
            "100 | POST / length=3 \"abc\" | next",
            "9110 10.1.1: 100, which may be left out if content has arrived",
        ),
        row(expect("100-Continue"), "100 | POST / length=3 \"abc\" | next", "9110 10.1.1: case-insensitive"),
        row(
            expect("100-continue, x"),
            "POST / length=3 \"abc\" | next",
            "9110 10.1.1: an unknown expectation may be answered 417, or ignored",
        ),
        row(
            expect("x"),
            "POST / length=3 \"abc\" | next",
            "9110 10.1.1: an unknown expectation may be answered 417, or ignored",
        ),
        row(
            expect("100-continue=1"),
            "POST / length=3 \"abc\" | next",
            "9110 10.1.1: an unknown expectation may be answered 417, or ignored",
        ),
        row(expect(""), "POST / length=3 \"abc\" | next", "9110 5.6.1: an empty list"),
        row(
            post("expect: 100-continue\r\nexpect: x\r\ncontent-length: 3\r\n", "abc"),
            "POST / length=3 \"abc\" | next",
            "9110 10.1.1: a list in two lines, of which hyper looks at the last only; the content is there anyway",
        ),
        row(post("expect: 100-continue\r\n", ""), "POST / | next", "9110 10.1.1: ignored without content"),
        row(
            "POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
            "POST / length=3 \"abc\"",
            "9110 10.1.1: ignored in HTTP/1.0",
        ),
        row(post("expect: 100-continue\r\ntransfer-encoding: chunked\r\n", "z\r\n"), "100 | 400", "7.1"),
        row(
            with("connection: upgrade\r\nupgrade: websocket\r\n"),
            "GET / | next",
            "9110 7.8: an upgrade may be ignored",
        ),
        row(
            with("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAAA\r\n"),
            "GET / | next",
            "9113 3.1: h2c by upgrade is deprecated",
        ),
        row(
            post("connection: upgrade\r\nupgrade: x\r\ncontent-length: 3\r\n", "abc"),
            "POST / length=3 \"abc\" | next",
            "9110 7.8",
        ),
    ]);
}
