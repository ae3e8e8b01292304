//! `wasi:http/types` where it says no: fields that cannot be changed or must not be set, and parts of requests that are none.

use wasip3::http::types::{Fields, HeaderError, Method, Request, RequestOptions, Response, Scheme};

use crate::answers::no_trailers;

pub(crate) async fn report(what: &str, request: &Request) -> String {
    match what {
        "rules" => rules(request),
        "parts" => parts(),
        "options" => options(),
        "hoards" => hoards(),
        _ => request.get_headers().copy_all().into_iter().map(|(name, _)| name + "\n").collect(),
    }
}

fn told(result: Result<(), HeaderError>) -> String {
    result.map_or_else(|error| format!("{error:?}"), |()| "accepted".to_owned())
}

fn rules(request: &Request) -> String {
    let mut text = String::new();
    let mut say = |what: &str, result: Result<(), HeaderError>| text += &format!("{what}: {}\n", told(result));
    let fields = Fields::new();
    say("name with a space", fields.append("malformed name", b"value"));
    say("empty name", fields.append("", b"value"));
    say("value with a line feed", fields.append("x-ok", b"bad\nvalue"));
    say("set to a value with a zero", fields.set("x-ok", &[b"bad\0value".to_vec()]));
    say("value that is not UTF-8", fields.append("x-ok", b"\xff"));
    for name in ["Connection", "keep-alive", "Host", "Transfer-Encoding", "upgrade", "te", "proxy-connection"] {
        say(name, fields.append(name, b"value"));
    }
    let list = |name: &str, value: &[u8]| Fields::from_list(&[(name.to_owned(), value.to_vec())]).map(drop);
    say("list with a malformed name", list("malformed name", b"value"));
    say("list with a forbidden name", list("connection", b"close"));
    say("list with a malformed value", list("x-ok", b"bad\nvalue"));
    say("too large a value", fields.append("x-large", &vec![b'x'; 200 << 10]));
    say("get and delete", fields.get_and_delete("X-Ok").map(|values| assert_eq!(values, [b"\xff"])));

    let incoming = request.get_headers();
    let outgoing = Request::new(fields, None, no_trailers(), None).0.get_headers();
    let answer = Response::new(Fields::new(), None, no_trailers()).0.get_headers();
    for (whose, headers) in [("incoming", &incoming), ("outgoing", &outgoing), ("answer's", &answer)] {
        say(&format!("set in {whose}"), headers.set("x-new", &[b"value".to_vec()]));
        say(&format!("append to {whose}"), headers.append("x-new", b"value"));
        say(&format!("delete from {whose}"), headers.delete("x-new"));
        say(&format!("append to a clone of {whose}"), headers.clone().append("x-new", b"value"));
    }
    assert!(!incoming.has("x-new") && !outgoing.has("x-new"), "and nothing has changed");
    text
}

fn parts() -> String {
    let request = Request::new(Fields::new(), None, no_trailers(), None).0;
    let mut text = String::new();
    let mut say = |what: &str, result: Result<(), ()>| text += &format!("{what}: {}\n", result.is_ok());
    say("method with a space", request.set_method(&Method::Other("not one".to_owned())));
    say("method of one's own", request.set_method(&Method::Other("PURGE".to_owned())));
    say("scheme with a line feed", request.set_scheme(Some(&Scheme::Other("bad\nscheme".to_owned()))));
    say("path with a line feed", request.set_path_with_query(Some("/bad\npath")));
    for authority in ["host:99999", "host:80:80", "bad\nhost", "[::1]", "[::1]:443", "host"] {
        say(&format!("authority {authority:?}"), request.set_authority(Some(authority)));
    }
    let answer = Response::new(Fields::new(), None, no_trailers()).0;
    for status in [99, 200, 599, 600, 1000] {
        say(&format!("status {status}"), answer.set_status_code(status));
    }
    text
}

fn options() -> String {
    let options = RequestOptions::new();
    let set = options.set_connect_timeout(Some(1)).and_then(|()| options.set_first_byte_timeout(Some(2)));
    set.and_then(|()| options.set_between_bytes_timeout(Some(3))).expect("they are all supported");
    let request = Request::new(Fields::new(), None, no_trailers(), Some(options)).0;
    let options = request.get_options().expect("they were given");
    let all = [options.get_connect_timeout(), options.get_first_byte_timeout(), options.get_between_bytes_timeout()];
    let refused = options.set_connect_timeout(None).expect_err("they belong to a request");
    let copy = options.clone();
    format!("{all:?}, {refused:?}, {:?}", copy.set_connect_timeout(None))
}

/// Keeps as much as it is allowed to have.
fn hoards() -> String {
    let mut all = Vec::new();
    loop {
        let fields = Fields::new();
        match fields.append("x-large", &[b'x'; 32 << 10]) {
            Ok(()) => all.push(fields),
            Err(error) => return format!("{}, then {error:?}", all.len()),
        }
    }
}
