//! Asks the authority that is its query with no path, with an empty one, and with a query alone; passes the answers on.
//!
//! No path is an empty path (WASI HTTP 0.2), and an empty path goes out as `/` (RFC 9112 section 3.2.1).
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::http::types::{IncomingRequest, Method, ResponseOutparam},
};

test_guests::export!(ask);

fn ask(request: &IncomingRequest, responder: ResponseOutparam) {
    let text: String = [None, Some(""), Some("?a=b")]
        .into_iter()
        .map(|path| {
            let outgoing = out::request(&Method::Get, &out::url(request), &[]);
            outgoing.set_path_with_query(path).expect("a valid path");
            match out::send(outgoing) {
                Ok(response) => format!("{path:?}: {}\n", out::read(&response)),
                Err(code) => format!("{path:?}: {code:?}\n"),
            }
        })
        .collect();
    test_guests::answer(responder, &text);
}
