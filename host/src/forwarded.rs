//! Who the peer is, told to the guest as `forwarded` (RFC 7239). Pure: headers in, headers out.
//!
//! A stranger's `forwarded` and `x-forwarded-*` are removed, because anyone can write them. Those of a trusted proxy stay,
//! and the host appends its own element, as every hop does. So the last element is always the host's own word about
//! its peer. A trusted proxy must itself replace what strangers sent to it: the host cannot tell.

use std::{
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Peers: a range of addresses, written as an address or as `ADDRESS/BITS`, or those that come over Unix sockets, written `unix:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// A range of addresses.
    Addresses {
        /// One of them.
        address: IpAddr,
        /// How many of its first bits all have.
        bits: u8,
    },
    /// Who has no address.
    Unix,
}

impl Network {
    /// True when `address` is in this range. An IPv4 address that arrives mapped into IPv6 counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let Self::Addresses { address: ours, bits } = *self else { return false };
        match (ours, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same_prefix(ours.to_bits().into(), theirs.to_bits().into(), 32 - bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same_prefix(ours.to_bits(), theirs.to_bits(), 128 - bits),
            _ => false,
        }
    }

    /// Whether a peer is one of these; over a Unix socket it has no address.
    fn has(&self, peer: Option<SocketAddr>) -> bool {
        peer.map_or(*self == Self::Unix, |peer| self.contains(peer.ip()))
    }

    /// The address, if the range has only one.
    pub(crate) fn single(&self) -> Option<IpAddr> {
        match *self {
            Self::Addresses { address, bits } if bits == length(address) => Some(address),
            _ => None,
        }
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        matches!(self, Self::Addresses { address, .. } if address.is_ipv6())
    }
}

/// In bits.
fn length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_prefix(one: u128, other: u128, ignored_bits: u8) -> bool {
    (one ^ other).checked_shr(ignored_bits.into()).unwrap_or(0) == 0
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self::Addresses { address, bits: length(address) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { address, bits } => write!(f, "{address}/{bits}"),
            Self::Unix => f.write_str("unix:"),
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let Some((address, bits)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(drop);
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let bits = bits.parse().map_err(drop)?;
        if bits > length(address) { Err(()) } else { Ok(Self::Addresses { address, bits }) }
    }
}

/// Rewrites the forwarding headers of a request that came from `peer`.
pub(crate) fn rewrite(headers: &mut HeaderMap, peer: Option<SocketAddr>, proto: &str, trusted: &[Network]) {
    let is_trusted = trusted.iter().any(|network| network.has(peer));
    if !is_trusted {
        strip(headers);
        if let Some(value) = header_value(&element(peer, proto)) {
            headers.insert(FORWARDED, value);
        }
        return;
    }
    let ours = element(peer, proto);
    append_to_list(headers, &FORWARDED, &ours);
    if let Some(peer) = peer.filter(|_| headers.contains_key(X_FORWARDED_FOR)) {
        append_to_list(headers, &X_FORWARDED_FOR, &peer.ip().to_canonical().to_string());
    }
}

fn strip(headers: &mut HeaderMap) {
    headers.remove(FORWARDED);
    // The names are collected first because a header map cannot be changed while it is walked; most requests have none.
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// One element of `forwarded`. The quotes are needed because of the colons (RFC 7239 §4), the brackets for IPv6 (§6).
fn element(peer: Option<SocketAddr>, proto: &str) -> String {
    let mut element = String::with_capacity(64);
    let written = match peer {
        Some(peer) => {
            let canonical = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            write!(element, "for=\"{canonical}\";proto={proto}")
        }
        None => write!(element, "for=unknown;proto={proto}"),
    };
    debug_assert!(written.is_ok(), "writing to a string does not fail");
    element
}

/// Joins all values of a list header and `last` into one value, but for those of `forwarded` that would swallow what comes after them.
fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, last: &str) {
    let mut list = Vec::new();
    for value in headers.get_all(name).iter().filter(|value| *name != FORWARDED || is_closed(value.as_bytes())) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
    }
}

/// Whether no quoted string is open at the end (RFC 9110 section 5.6.4).
fn is_closed(value: &[u8]) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in value {
        is_quoted ^= *byte == b'"' && !is_escaped;
        is_escaped = is_quoted && !is_escaped && *byte == b'\\';
    }
    !is_quoted
}

fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn peer(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("a socket address"))
    }

    #[test]
    fn a_stranger_cannot_say_who_it_is() {
        let mut headers = headers(&[
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-whatever", "1"),
            ("traceparent", "00-1-2-3"),
        ]);
        rewrite(&mut headers, peer("192.0.2.7:4711"), "http", &[]);
        assert_eq!(headers[FORWARDED], "for=\"192.0.2.7:4711\";proto=http");
        assert_eq!(headers.len(), 2, "{headers:?}");
        assert_eq!(headers["traceparent"], "00-1-2-3");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_named_last() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = headers(&[
            ("forwarded", "for=192.0.2.60"),
            ("forwarded", "for=192.0.2.61"),
            ("x-forwarded-for", "192.0.2.60"),
            ("x-forwarded-proto", "https"),
        ]);
        rewrite(&mut headers, peer("10.1.2.3:99"), "http", &trusted);
        assert_eq!(headers[FORWARDED], "for=192.0.2.60, for=192.0.2.61, for=\"10.1.2.3:99\";proto=http");
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.60, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn a_peer_over_a_unix_socket_is_believed_if_it_is_said_so_and_has_no_name() {
        let claims = [("forwarded", "for=192.0.2.60"), ("x-forwarded-for", "192.0.2.60")];
        let everybody = ["0.0.0.0/0", "::/0"].map(|network| network.parse().expect("a network"));
        let mut stranger = headers(&claims);
        rewrite(&mut stranger, None, "http", &everybody);
        assert_eq!((&stranger[FORWARDED], stranger.len()), (&HeaderValue::from_static("for=unknown;proto=http"), 1));
        let mut trusted = headers(&claims);
        rewrite(&mut trusted, None, "http", &[Network::Unix]);
        assert_eq!(trusted[FORWARDED], "for=192.0.2.60, for=unknown;proto=http");
        assert_eq!(trusted[X_FORWARDED_FOR], "192.0.2.60");
        let mut over_tcp = headers(&claims);
        rewrite(&mut over_tcp, peer("127.0.0.1:1"), "http", &[Network::Unix]);
        assert_eq!(over_tcp[FORWARDED], "for=\"127.0.0.1:1\";proto=http");
    }

    #[test]
    fn an_open_quote_does_not_swallow_the_last_word() {
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        let mut headers = headers(&[
            ("forwarded", "for=192.0.2.60;by=\"a"),
            ("forwarded", "for=\"_\\\""),
            ("forwarded", "for=192.0.2.61;by=\"a\\\", \\\\\""),
        ]);
        rewrite(&mut headers, peer("10.1.2.3:99"), "http", &trusted);
        let expected = "for=192.0.2.61;by=\"a\\\", \\\\\", for=\"10.1.2.3:99\";proto=http";
        assert_eq!(headers[FORWARDED], expected);
    }

    #[test]
    fn ipv6_peers_stand_in_brackets_and_mapped_ones_are_ipv4() {
        let mut headers = HeaderMap::new();
        rewrite(&mut headers, peer("[2001:db8::1]:80"), "http", &[]);
        assert_eq!(headers[FORWARDED], "for=\"[2001:db8::1]:80\";proto=http");
        rewrite(&mut headers, peer("[::ffff:192.0.2.1]:80"), "http", &[]);
        assert_eq!(headers[FORWARDED], "for=\"192.0.2.1:80\";proto=http");
    }

    #[test]
    fn networks_contain_what_they_say() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().expect("a network").contains(address.parse().expect("an address"))
        };
        assert!(contains("127.0.0.1", "127.0.0.1"));
        assert!(contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("192.168.0.0/16", "192.168.255.1"));
        assert!(!contains("192.168.0.0/16", "192.169.0.1"));
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1"));
        assert!(contains("fd00::/8", "fd12::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "ten", "10.0.0.0/", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
