//! Guests that only wrap a core module are called directly; as components the same guests answer the same, and end the same.

use std::fs;

use serde_json::Value;

use crate::harness::{BOTH, Host, Http, Scratch, Setup, guest};

/// A section with a core module that is empty: with it a component is more than one that it wraps.
const MODULE_MORE: &[u8] = b"\x01\x08\0asm\x01\0\0\0";

/// None whose answer depends on whether it has run for a tick.
const GUESTS: [&str; 28] = [
    "hello",
    "echo",
    "router",
    "raw_hello",
    "axum-app",
    "waki_app",
    "wstd-app",
    "answers_with_an_error_code",
    "answers_without_content",
    "breaks_header_rules",
    "drops_exchanges_early",
    "drops_parents_first",
    "exhausts_handles",
    "exits",
    "forges_log_lines",
    "frames_its_bodies",
    "hop_by_hop_headers",
    "never_answers",
    "orders_its_answer_oddly",
    "polls_nothing",
    "reads_back_its_fields",
    "reads_request_head",
    "sends_trailers",
    "sets_invalid_request_parts",
    "takes_everything_twice",
    "trap_after_head",
    "trap_before_head",
    "uses_every_stream_call",
];

/// What a client is told, but for what no two requests have in common, and what the host makes of it.
fn told(host: &Host, version: Http, method: &str, body: Option<&[u8]>) -> (String, Option<Value>) {
    let headers = [("x-first", "1"), ("x-second", "two"), ("x-request-id", "asked")];
    match host.ask(version, method, "/some/path?and=query", &headers, body) {
        Err(error) => (error, None),
        Ok(answer) => {
            // How a body is framed says also whether the guest ran for a tick before it had finished that.
            let differ = ["date", "x-request-id", "content-length", "transfer-encoding"];
            let is_alike = |name: &str| !differ.contains(&name);
            let headers: Vec<_> = answer.headers.iter().filter(|(name, _)| is_alike(name.as_ref())).collect();
            let text = answer
                .text()
                .lines()
                .filter(|line| !line.starts_with("forwarded:") && !line.starts_with("x-request-id:"));
            let told = format!("{} {headers:?} {:?}", answer.status, text.collect::<Vec<_>>());
            (told, Some(host.access(&answer)["outcome"].clone()))
        }
    }
}

#[test]
fn what_guests_answer_does_not_depend_on_how_they_are_called() {
    let dir = Scratch::new();
    for name in GUESTS {
        let direct = guest(name);
        let component = [&fs::read(&direct).expect("it is built"), MODULE_MORE].concat();
        let component = Setup::run(dir.file(&format!("{name}.wasm"), component)).start();
        let direct = Setup::run(direct).start();
        for version in BOTH {
            for (method, body) in [("GET", None), ("POST", Some(&b"upload"[..]))] {
                let [direct, component] = [&direct, &component].map(|host| told(host, version, method, body));
                assert_eq!(direct, component, "{name}: {method} over {version:?}");
            }
        }
    }
}
