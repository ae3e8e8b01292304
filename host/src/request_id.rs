//! Request ids: unique, cheap to make, sortable by time of arrival. Also what becomes of the id a client sends along.
//!
//! An id is the start of the process in milliseconds, 32 random bits of the process and a counter, all as hexadecimal
//! numbers of fixed width. So ids of one process sort by arrival, ids of several by their start, and making one costs an
//! atomic addition: no clock, no random number, no allocation.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The host's id of a request: in the request the guest sees, in the response, and in every log line.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id the client itself sent as `x-request-id`, as the guest sees it.
pub(crate) const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

const MAX_CLIENT_ID: usize = 128;

/// The id of one request, 31 characters of ASCII.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestId([u8; 31]);

impl RequestId {
    pub(crate) fn as_str(&self) -> &str {
        // Written by `RequestIds::next` only, which writes hexadecimal digits and dashes.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where ids come from; one a host, shared by its workers.
pub(crate) struct RequestIds {
    prefix: [u8; 21],
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        // The standard library seeds this hasher from the system's random numbers; that is all we need of it.
        let random = RandomState::new().build_hasher().finish();
        let mut prefix = [b'-'; 21];
        hex(start, &mut prefix[..11]);
        hex(random, &mut prefix[12..20]);
        Self { prefix, next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> RequestId {
        // Relaxed: nothing else is published with the number, it only has to be a different one each time.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 31];
        id[..21].copy_from_slice(&self.prefix);
        hex(number, &mut id[21..]);
        RequestId(id)
    }
}

/// Writes the low digits of `number` that fit, most significant first.
fn hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// Puts the host's id into a request. What the client sent as `x-request-id`, if it is well formed, moves to
/// `x-client-request-id` and is returned; a client cannot set that header itself.
pub(crate) fn stamp(headers: &mut HeaderMap, id: &RequestId) -> Option<HeaderValue> {
    headers.remove(CLIENT_REQUEST_ID);
    let client_id = sent(headers);
    headers.insert(REQUEST_ID, id.header());
    if let Some(client_id) = &client_id {
        headers.insert(CLIENT_REQUEST_ID, client_id.clone());
    }
    client_id
}

/// The request id that a client sent, if it is well formed and the only one.
pub(crate) fn sent(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut sent = headers.get_all(REQUEST_ID).iter();
    match (sent.next(), sent.next()) {
        (Some(only), None) if well_formed(only) => Some(only.clone()),
        _ => None,
    }
}

fn well_formed(id: &HeaderValue) -> bool {
    let id = id.as_bytes();
    (1..=MAX_CLIENT_ID).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/+=@".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_sort_by_arrival() {
        let ids = RequestIds::new();
        let made: Vec<RequestId> = (0..1000).map(|_| ids.next()).collect();
        assert!(made.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert!(made[0].as_str().bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        assert_eq!(made[999].as_str().len(), 31);
        assert!(made[255].as_str().ends_with("-00000000ff"));
    }

    #[test]
    fn two_hosts_do_not_share_ids() {
        assert_ne!(RequestIds::new().next().as_str(), RequestIds::new().next().as_str());
    }

    #[test]
    fn a_well_formed_client_id_is_passed_on_beside_ours() {
        let id = RequestIds::new().next();
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("abc-123"));
        headers.insert(CLIENT_REQUEST_ID, HeaderValue::from_static("forged"));
        assert_eq!(stamp(&mut headers, &id).expect("it is well formed"), "abc-123");
        assert_eq!(headers[REQUEST_ID], id.as_str());
        assert_eq!(headers[CLIENT_REQUEST_ID], "abc-123");
    }

    #[test]
    fn a_malformed_or_doubled_client_id_is_dropped() {
        let id = RequestIds::new().next();
        for sent in [&["a b"][..], &[""], &["a\"b"], &["one", "two"], &[&"x".repeat(129)]] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(REQUEST_ID, HeaderValue::from_str(value).expect("legal in a header"));
            }
            assert_eq!(stamp(&mut headers, &id), None, "{sent:?}");
            assert_eq!(headers.get_all(REQUEST_ID).iter().count(), 1);
            assert!(!headers.contains_key(CLIENT_REQUEST_ID));
        }
    }
}
