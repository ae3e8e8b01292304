//! Gives an outgoing request parts that are not valid, one by one, and says what was accepted and what it has in the end.
//!
//! The host must refuse all but those marked `valid` at once, when they are set, and keep what was there before.
#![cfg(target_family = "wasm")]

use test_guests::wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingRequest, ResponseOutparam, Scheme};

test_guests::export!(set);

fn set(_request: &IncomingRequest, responder: ResponseOutparam) {
    let outgoing = OutgoingRequest::new(Fields::new());
    let long = format!("/{}", "x".repeat(70_000));
    let parts = || {
        let (scheme, authority) = (outgoing.scheme(), outgoing.authority());
        format!("{:?} {scheme:?} {authority:?} {:?}\n", outgoing.method(), outgoing.path_with_query())
    };
    let mut text = format!("at first: {}", parts());
    let mut say = |what: &str, result: Result<(), ()>| {
        text += &format!("{what}: {}\n", if result.is_ok() { "accepted" } else { "refused" });
    };
    say("valid method", outgoing.set_method(&Method::Other("BREW".into())));
    say("method with a line feed", outgoing.set_method(&Method::Other("bad\nmethod".into())));
    say("method with a space", outgoing.set_method(&Method::Other("bad method".into())));
    say("empty method", outgoing.set_method(&Method::Other(String::new())));
    say("valid scheme", outgoing.set_scheme(Some(&Scheme::Other("ftp".into()))));
    say("scheme with a space", outgoing.set_scheme(Some(&Scheme::Other("bad scheme".into()))));
    say("scheme with a line feed", outgoing.set_scheme(Some(&Scheme::Other("bad\nscheme".into()))));
    say("valid authority without a port", outgoing.set_authority(Some("[::1]")));
    say("valid authority", outgoing.set_authority(Some("[::1]:80")));
    say("authority with a space", outgoing.set_authority(Some("bad host")));
    say("authority with a line feed", outgoing.set_authority(Some("bad-\nhost")));
    say("valid path", outgoing.set_path_with_query(Some("/?a=b")));
    say("path with a line feed", outgoing.set_path_with_query(Some("/bad\npath")));
    say("path with a space", outgoing.set_path_with_query(Some("/bad path")));
    say("path without a slash", outgoing.set_path_with_query(Some("bad")));
    say("path of 70,000 bytes", outgoing.set_path_with_query(Some(&long)));
    text += &format!("at last: {}", parts());
    test_guests::answer(responder, &text);
}
