//! What the server answers by itself: what HTTP asks a server to refuse and hyper lets through, what is over our limits, and the
//! answers for it. (hyper refuses malformed framing and heads that are too large.)

use std::net::Ipv6Addr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::counts::Event;
use crate::exchange::{Refused, contained};
use crate::link::Link;
use crate::outgoing::Outgoing;
use crate::told::Told;

impl Link {
    /// Counts a refusal, and lets the handler know of it.
    pub(crate) fn refuse<B>(
        &self,
        request: http::Request<B>,
        response: http::Response<Outgoing>,
        why: Event,
        queued: Duration,
    ) -> (http::Response<Outgoing>, Option<Told>) {
        self.note(why);
        let (request, _body) = request.into_parts();
        let (mut response, body) = response.into_parts();
        let (info, head) = (self.info(), &mut response);
        let refused = Refused { why, queued, request: &request, info, response: head };
        // Whoever comes here has something else to do, for others too.
        let told = contained("a handler", || self.handler.refused(refused)).flatten();
        (http::Response::from_parts(response, body), told)
    }

    /// What HTTP asks a server to refuse and hyper lets through, and what is over our limits: answered without a handler.
    pub(crate) fn refusal(&self, request: &http::Request<Incoming>) -> Option<http::Response<Outgoing>> {
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"));
            return Some(response);
        }
        if !has_valid_target(request) {
            return Some(refusal(StatusCode::BAD_REQUEST));
        }
        if request.version() == Version::HTTP_2 {
            if request.headers().values().any(is_padded) {
                return Some(refusal(StatusCode::BAD_REQUEST));
            }
            // On HTTP/1 hyper has counted.
            if request.headers().len() > self.limits.max_headers {
                return Some(refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
            }
        }
        if let Some(code) = refused_coding(request.headers()) {
            return Some(refusal(code));
        }
        if request.body().size_hint().lower() > self.limits.max_body {
            return Some(refusal(StatusCode::PAYLOAD_TOO_LARGE));
        }
        None
    }
}

/// A field value that starts or ends with a space or tab is malformed on HTTP/2 (RFC 9113 section 8.2.1); on HTTP/1 they are no
/// part of it.
fn is_padded(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// We know one transfer coding, which may be applied once (RFC 9112 sections 6.1 and 7): others would reach the handler undecoded.
fn refused_coding(headers: &HeaderMap) -> Option<StatusCode> {
    headers.get(TRANSFER_ENCODING)?;
    let codings =
        headers.get_all(TRANSFER_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => None,
        (Some(first), Some(_)) if first.eq_ignore_ascii_case(b"chunked") => Some(StatusCode::BAD_REQUEST),
        _ => Some(StatusCode::NOT_IMPLEMENTED),
    }
}

/// A target of the right form, and RFC 9112 section 3.2: exactly one `Host`, and a valid one, in every HTTP/1.1 request; RFC 9113 section 8.3.1: `:authority` takes
/// its place, and a `Host` beside it must agree.
fn has_valid_target(request: &http::Request<Incoming>) -> bool {
    let (headers, uri) = (request.headers(), request.uri());
    // Authority-form is for CONNECT, asterisk-form for OPTIONS (RFC 9112 sections 3.2.3 and 3.2.4, RFC 9113 section 8.3.1).
    let is_authority_form = request.version() < Version::HTTP_2 && uri.scheme().is_none() && uri.authority().is_some();
    if is_authority_form || (uri.path() == "*" && request.method() != Method::OPTIONS) {
        return false;
    }
    // User information in particular (RFC 9110 section 4.2.4, RFC 9113 section 8.3.1).
    if uri.authority().is_some_and(|authority| !is_authority(authority.as_str().as_bytes())) {
        return false;
    }
    // The first test, which is cheap, says whether any field stands there twice.
    if headers.len() != headers.keys_len() && headers.get_all(HOST).iter().nth(1).is_some() {
        return false;
    }
    let authority = uri.authority();
    match (headers.get(HOST), request.version()) {
        (None, Version::HTTP_11) => false,
        (None, Version::HTTP_2) => authority.is_some(),
        (None, _) => true,
        (Some(host), Version::HTTP_2) => {
            let agrees = |uri: &Authority| uri.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes());
            is_authority(host.as_bytes()) && authority.is_none_or(agrees)
        }
        (Some(host), _) => is_authority(host.as_bytes()),
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 section 7.2), without user information. An empty value is allowed: the target may have no
/// authority (RFC 9112 section 3.2).
fn is_authority(host: &[u8]) -> bool {
    // Nearly every host is a name or an IPv4 address, with a port or without.
    let name =
        host.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'.' | b'_'));
    match name {
        None => return true,
        Some(0) if host[0] == b':' => return false,
        Some(at) if host[at] == b':' => return is_port(&host[at + 1..]),
        Some(_) => {}
    }
    let Ok(authority) = Authority::try_from(host) else { return false };
    let (is_host, after_host) = match authority.as_str().strip_prefix('[') {
        // An address of IPv6, without a zone, which means nothing to others (RFC 6874 section 4).
        Some(literal) => {
            let (address, after) = literal.split_once(']').unwrap_or_default();
            (address.parse::<Ipv6Addr>().is_ok(), after)
        }
        None => {
            let name = authority.as_str().split(':').next().unwrap_or_default();
            (!name.is_empty(), &authority.as_str()[name.len()..])
        }
    };
    let is_port = after_host.is_empty() || after_host.strip_prefix(':').is_some_and(|port| is_port(port.as_bytes()));
    !host.contains(&b'@') && is_host && is_port
}

/// A number of 16 bits, or nothing (RFC 3986 section 3.2.3).
fn is_port(port: &[u8]) -> bool {
    let number = |number: u32, digit: &u8| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0'));
    port.len() <= 5 && port.iter().try_fold(0, number).is_some_and(|number| number <= u32::from(u16::MAX))
}

/// hyper would send a body with 205, its HTTP/2 with HEAD, 204 and 304 too. The length it would have had may be told (RFC 9110 section 8.6),
/// but not with 204, and with 205 it is 0 (section 15.3.6).
pub(crate) fn drop_body(response: &mut http::Response<Outgoing>) {
    let body = std::mem::replace(response.body_mut(), Outgoing::full(Bytes::new()));
    let headers = response.headers_mut();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// A status with its reason as text.
pub(crate) fn status(status: StatusCode) -> http::Response<Outgoing> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = http::Response::new(Outgoing::full(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A status after which the connection closes, since the rest of the request will not be read.
pub(crate) fn refusal(code: StatusCode) -> http::Response<Outgoing> {
    let mut response = status(code);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The client was gone before there was an answer. Not of the standard: nginx has made it known, and no client ever sees it.
pub(crate) fn client_closed_request() -> StatusCode {
    // Any number of three digits is a status.
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

pub(crate) fn overloaded() -> http::Response<Outgoing> {
    let mut response = status(StatusCode::SERVICE_UNAVAILABLE);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::is_authority;

    #[test]
    fn host_is_an_authority_without_user_information() {
        for good in ["", "a", "a.example:80", "[::1]:8080", "[::1]", "127.0.0.1:1", "a:", "a,b", "[1::2]:"] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "u@a",
            "a/b",
            "a:b",
            "a:99999",
            "[::1",
            ":80",
            "a,b c",
            "a?b",
            "a#b",
            "[::1]x",
            "[]",
            "[a]",
            "[::1%25lo]",
            "[::1]:x",
            "a]",
            "a%41",
            "a:1:2",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
