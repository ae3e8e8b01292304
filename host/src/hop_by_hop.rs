//! What concerns only one connection and must not be passed on (RFC 9110 §7.6.1). Pure.

use http::{HeaderMap, HeaderName, header};
use wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS;

/// Whether a header always concerns one connection: no guest is told it or may set it. wasmtime-wasi-http's list lacks
/// `te`.
pub(crate) fn concerns_connection(name: &HeaderName) -> bool {
    *name == header::TE || DEFAULT_FORBIDDEN_HEADERS.contains(name)
}

/// Removes what concerns one connection: what always does, and what `Connection` names.
pub(crate) fn clean(headers: &mut HeaderMap) {
    remove(headers, concerns_connection);
}

/// Removes from trailers what can only stand in a head (RFC 9110 §6.5.1): what concerns the connection, and where the
/// body ends.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    remove(trailers, |name| concerns_connection(name) || *name == header::CONTENT_LENGTH || *name == header::TRAILER);
}

fn remove(headers: &mut HeaderMap, is_out: impl Fn(&HeaderName) -> bool) {
    strip_named(headers);
    let out: Vec<HeaderName> = headers.keys().filter(|name| is_out(name)).cloned().collect();
    for name in out {
        headers.remove(name);
    }
}

/// Removes the headers that `Connection` names, and returns their names.
pub(crate) fn strip_named(headers: &mut HeaderMap) -> Vec<HeaderName> {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // Where a message goes and where its body ends is not for its sender to take back.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    for name in &named {
        headers.remove(name);
    }
    named
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_keep_what_is_of_the_content_only() {
        let mut trailers = HeaderMap::new();
        for name in ["content-length", "transfer-encoding", "connection", "x-named", "host", "te", "trailer", "x-sum"] {
            let value = if name == "connection" { "x-named" } else { "1" };
            trailers.insert(name, HeaderValue::from_static(value));
        }
        clean_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-sum"]);
    }
}
