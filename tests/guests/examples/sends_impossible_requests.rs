//! Sends requests that cannot be: without an authority, without a scheme (which is `https`, and not granted), of an unknown scheme, to a
//! port that is none, as a user, with CONNECT, with a length and no body; and two that only fail: to a name that does not exist, to a port where
//! nobody listens.
//!
//! Each has to end in an error code, from `handle` or from its future, and none in a trap.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingRequest, ResponseOutparam, Scheme},
};

test_guests::export!(send);

fn send(_request: &IncomingRequest, responder: ResponseOutparam) {
    let parts = |scheme: Option<Scheme>, authority: Option<&str>| {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(scheme.as_ref()).expect("a valid scheme");
        request.set_authority(authority).expect("a valid authority");
        request.set_path_with_query(Some("/")).expect("a valid path");
        request
    };
    let nobody = Some("127.0.0.1:1");
    let url = "http://127.0.0.1:1/";
    let requests = [
        ("no authority", parts(Some(Scheme::Http), None)),
        ("no scheme", parts(None, nobody)),
        ("unknown scheme", parts(Some(Scheme::Other("ftp".into())), nobody)),
        ("port out of range", parts(Some(Scheme::Http), Some("127.0.0.1:99999"))),
        ("user", parts(Some(Scheme::Http), Some("user:secret@127.0.0.1:1"))),
        ("CONNECT", out::request(&Method::Connect, url, &[])),
        ("length without body", out::request(&Method::Post, url, &[("content-length", "5")])),
        ("unknown name", parts(Some(Scheme::Http), Some("name.invalid"))),
        ("nobody listens", parts(Some(Scheme::Http), nobody)),
    ];
    let text: String = requests
        .into_iter()
        .map(|(what, request)| match out::send(request) {
            Ok(response) => format!("{what}: {}\n", response.status()),
            Err(code) => format!("{what}: {code:?}\n"),
        })
        .collect();
    test_guests::answer(responder, &text);
}
