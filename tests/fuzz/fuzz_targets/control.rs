//! The control socket: a question arrives as it was meant, whatever is in its names and values; any other target is refused or read; and what
//! hosts say is read back as it was said. The first byte chooses; parts are separated by the character U+001F.

#![no_main]

use astra_host::{events::Event, fuzzing, receipt::Receipt, status::Status};
use http::{Method, StatusCode, Uri};
use serde_json::Value;

const KEYS: [&str; 5] = ["canary", "no_new_imports", "until_restart", "no_wait", "source"];

fn round_trip(parts: &[&str]) {
    let name = parts[0];
    let value = |at: usize| parts.get(at + 1).copied();
    let query: Vec<(&str, Option<&str>)> = KEYS.iter().enumerate().map(|(at, key)| (*key, value(at))).collect();
    let target = fuzzing::target(&["v1", "handlers", name, "swap"], &query);
    let uri: Uri = target.parse().expect("a target");
    let asked = fuzzing::asked(&Method::POST, &uri, &KEYS);
    let values = (0..KEYS.len()).map(|at| value(at).map(str::to_owned)).collect();
    let expected =
        if name.is_empty() { Err(StatusCode::NOT_FOUND) } else { Ok(("Swap".to_owned(), name.to_owned(), values)) };
    assert_eq!(asked, expected, "{target}");
}

fn anything(method: &str, target: &str) {
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), target.parse::<Uri>()) else { return };
    match fuzzing::asked(&method, &uri, &KEYS) {
        Ok((task, name, _)) => {
            let is_named = matches!(task.as_str(), "Kill" | "Swap" | "Rollback" | "Promote" | "Abort");
            assert_eq!(is_named, !name.is_empty());
            let expected = match task.as_str() {
                "Kill" => Method::DELETE,
                "Index" | "Metrics" | "Status" | "Requests" | "Events" | "Healthz" | "Readyz" => Method::GET,
                _ => Method::POST,
            };
            assert_eq!(method, expected);
        }
        Err(status) => assert!(matches!(status.as_u16(), 400 | 404 | 405)),
    }
}

fn message(text: &str) {
    let said: Vec<(Value, String)> = [
        serde_json::from_str::<Receipt>(text).ok().map(|receipt| (serde_json::to_value(&receipt), receipt.to_string())),
        serde_json::from_str::<Event>(text).ok().map(|event| (serde_json::to_value(&event), String::new())),
        serde_json::from_str::<Status>(text).ok().map(|status| (serde_json::to_value(&status), String::new())),
    ]
    .into_iter()
    .flatten()
    .map(|(value, shown)| (value.expect("is written"), shown))
    .collect();
    for (value, _) in said {
        let again: Value = serde_json::from_str(&value.to_string()).expect("is read");
        assert_eq!(again, value);
    }
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut chars = text.chars();
    let choice = chars.next();
    let parts: Vec<&str> = chars.as_str().split('\u{1f}').collect();
    match choice {
        Some('q') => round_trip(&parts),
        Some('m') => message(parts[0]),
        _ => anything(parts[0], parts.get(1).copied().unwrap_or("/")),
    }
});
