//! What concerns only one connection and must not be passed on (RFC 9110 §7.6.1). Pure.

use http::{HeaderMap, HeaderName, header};

/// Removes the headers that `Connection` names. Those that always concern one connection, no guest is told or may set
/// (`guest/outbound/mod.rs`).
pub(crate) fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // Where a message goes and where its body ends is not for its sender to take back.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
}
