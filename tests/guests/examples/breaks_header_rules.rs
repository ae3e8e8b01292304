//! Tries what the rules for `fields` forbid, and says what came of it; the URL that is its query is asked for a response to try.
//!
//! Malformed names and values are `invalid-syntax`, connection-specific names `forbidden`, a second or malformed `content-length` is not
//! possible; the headers of a request or response that exists are `immutable`, those of our own request from outside too, and none of
//! them is changed. A clone can be changed.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{
        Fields, HeaderError, IncomingRequest, Method, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    },
};

test_guests::export!(try_all);

fn try_all(request: &IncomingRequest, responder: ResponseOutparam) {
    let mut text = String::new();
    let mut say = |what: &str, result: Result<(), HeaderError>| {
        text += &format!("{what}: {}\n", result.map_or_else(|error| format!("{error:?}"), |()| "accepted".into()));
    };
    let fields = Fields::new();
    say("name with a space", fields.append("malformed name", b"value"));
    say("empty name", fields.append("", b"value"));
    say("value with a line feed", fields.append("x-bad", b"bad\nvalue"));
    say("value with a carriage return", fields.set("x-bad", &[b"bad\rvalue".to_vec()]));
    say("value with a zero", fields.append("x-bad", b"bad\0value"));
    say("value that is not UTF-8", fields.append("x-ok", b"\xff"));
    say("deletion of a malformed name", fields.delete("malformed name"));
    for name in [
        "Connection",
        "keep-alive",
        "Host",
        "transfer-encoding",
        "upgrade",
        "proxy-connection",
        "proxy-authorization",
        "http2-settings",
        "te",
    ] {
        say(name, fields.append(name, b"value"));
    }
    say("length that is no number", fields.append("content-length", b"+5"));
    say("length", fields.append("content-length", b"5"));
    say("second length", fields.append("content-length", b"6"));
    let list = |entries: &[(&str, &[u8])]| {
        let entries: Vec<_> = entries.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Fields::from_list(&entries).map(drop)
    };
    say("list with a malformed name", list(&[("malformed name", b"value")]));
    say("list with a malformed value", list(&[("x-bad", b"bad\nvalue")]));
    say("list with a forbidden name", list(&[("connection", b"close")]));
    say("list with two lengths", list(&[("content-length", b"5"), ("content-length", b"6")]));

    let outgoing = OutgoingRequest::new(fields);
    let headers = outgoing.headers();
    say("set in an outgoing request", headers.set("x-new", &[b"value".to_vec()]));
    say("append to an outgoing request", headers.append("x-new", b"value"));
    say("delete from an outgoing request", headers.delete("x-ok"));
    let response = OutgoingResponse::new(Fields::new());
    let of_response = response.headers();
    say("append to an outgoing response", of_response.append("x-new", b"value"));
    let incoming = request.headers();
    say("append to the incoming request", incoming.append("x-new", b"value"));
    say("append to a clone of it", incoming.clone().append("x-new", b"value"));
    let answered = out::send(out::request(&Method::Get, &out::url(request), &[])).expect("an answer");
    let of_answer = answered.headers();
    say("delete from an incoming response", of_answer.delete("content-length"));
    let has = [
        (&headers, "x-ok"),
        (&headers, "x-bad"),
        (&headers, "x-new"),
        (&of_response, "x-new"),
        (&incoming, "x-new"),
        (&of_answer, "content-length"),
    ];
    text += &format!("there: {:?}\n", has.map(|(fields, name)| fields.has(name)));
    // Each is a child of what it belongs to.
    drop((headers, of_response, incoming, of_answer));
    test_guests::answer(responder, &text);
}
