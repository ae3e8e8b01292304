//! Where a guest may connect to: what a rule says, and whether a name, an address and a port fit it. Pure.
//!
//! A name is not enough: whoever runs its zone decides what it resolves to. So each rule is asked twice, for what the guest named and for
//! the address that this turned out to be. A rule that names an address, or one that says `private`, may lead into the networks around
//! us; any other leads to public addresses only, which keeps guests away from metadata services and from the host itself.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use http::uri::Scheme;

use crate::forwarded::Network;

/// The longest name that there can be, in bytes (RFC 1035 section 2.3.4).
pub(crate) const LONGEST_NAME: usize = 253;

/// Hosts, as a rule names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name, in lower case and without the last dot.
    Name(String),
    /// Every name below this one, which is not itself among them: `*.example.com`.
    Below(String),
    /// This address, or this range of them.
    Network(Network),
    /// Every name and address: `*`.
    Any,
}

impl HostPattern {
    /// Reads `db.internal`, `*.example.com`, `*`, `192.0.2.7`, `10.0.0.0/8`, `[2001:db8::1]` or `[fd00::/8]`. IPv6 has brackets, as in a URL:
    /// its last part would pass for a port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        if let Ok(network) = bracketed.unwrap_or(text).parse::<Network>() {
            return (network.is_ipv6() == bracketed.is_some()).then_some(Self::Network(network));
        }
        match text.strip_prefix("*.") {
            Some(name) => normal_name(name).map(Self::Below),
            None => normal_name(text).map(Self::Name),
        }
    }

    /// Whether it is a name or an address, rather than one of the stars.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Network(_))
    }

    /// Whether it says `host`: a name, or an address as in a URL.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match (self, address.parse::<IpAddr>()) {
            (Self::Any, _) => true,
            (Self::Network(network), Ok(address)) => network.contains(address),
            (Self::Network(_), Err(_)) | (Self::Name(_) | Self::Below(_), Ok(_)) => false,
            (Self::Name(name), Err(_)) => without_dot(host).eq_ignore_ascii_case(name),
            (Self::Below(name), Err(_)) => is_below(without_dot(host), name),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Network(network) => match network.single() {
                Some(IpAddr::V6(address)) => write!(f, "[{address}]"),
                Some(IpAddr::V4(address)) => write!(f, "{address}"),
                None if network.is_ipv6() => write!(f, "[{network}]"),
                None => write!(f, "{network}"),
            },
        }
    }
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn is_below(host: &str, name: &str) -> bool {
    let Some(at) = host.len().checked_sub(name.len()) else { return false };
    let (label, rest) = (host.get(..at), host.get(at..));
    label.is_some_and(|label| label.len() > 1 && label.ends_with('.'))
        && rest.is_some_and(|rest| rest.eq_ignore_ascii_case(name))
}

/// A host name in lower case without its last dot, if it is one (RFC 1123 section 2.1; `_` is seen in practice).
fn normal_name(text: &str) -> Option<String> {
    let name = without_dot(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A last label of digits would be an address in one of its odd forms.
    let last = name.rsplit('.').next()?;
    let fits =
        name.len() <= LONGEST_NAME && name.split('.').all(is_label) && !last.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| name.to_ascii_lowercase())
}

/// A host and a port that raw TCP may connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRule {
    /// Which hosts.
    pub host: HostPattern,
    /// Which port; every one if there is none (`*`).
    pub port: Option<u16>,
}

impl TcpRule {
    /// Reads `HOST:PORT`, such as `db.internal:5432`, `10.0.0.0/8:*` or `[::1]:6379`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: HostPattern::parse(host)?, port: port_or_any(port)? })
    }

    /// Whether a connection to `address`, port `port`, is what this rule means. `names` are those under which this request has resolved the
    /// address. A rule with one whole name trusts that name wherever it leads, short of link-local addresses, where metadata services are.
    #[must_use]
    pub fn allows(&self, address: IpAddr, port: u16, names: &[&str]) -> bool {
        if self.port.is_some_and(|allowed| allowed != port) {
            return false;
        }
        match &self.host {
            HostPattern::Network(network) => network.contains(address),
            HostPattern::Name(_) => is_unicast(address) && names.iter().any(|name| self.host.names(name)),
            HostPattern::Below(_) => is_public(address) && names.iter().any(|name| self.host.names(name)),
            HostPattern::Any => is_public(address),
        }
    }
}

impl fmt::Display for TcpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}:*", self.host),
        }
    }
}

/// The port of URLs without one.
pub(crate) fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

/// A port that can be connected to, in digits.
pub(crate) fn port(text: &str) -> Option<u16> {
    // `parse` would take a `+`.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// `None` if it is no port, else the port or `*`.
fn port_or_any(text: &str) -> Option<Option<u16>> {
    if text == "*" { Some(None) } else { port(text).map(Some) }
}

/// Where outgoing HTTP requests may go, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRule {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Which hosts.
    pub host: HostPattern,
    /// Which port; every one if there is none (`*`).
    pub port: Option<u16>,
    /// Whether a name may lead to private, loopback and link-local addresses.
    pub private: bool,
    /// A PEM file with roots to trust beside the system's.
    pub roots: Option<PathBuf>,
    /// PEM files with the client's certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl OutboundRule {
    /// Reads `https://api.example.com`, `http://127.0.0.1:9000`, `https://*.example.com:8443` or `https://*:*`. Without a port it is the
    /// scheme's own.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of an IPv6 address are in brackets.
            Some((host, port)) if !port.contains(']') => (host, port_or_any(port)?),
            _ => (rest, Some(default_port(&scheme))),
        };
        if host.contains(['/', '@', '?', '#']) {
            return None;
        }
        let host = HostPattern::parse(host)?;
        Some(Self { scheme, host, port, private: false, roots: None, client: None })
    }

    /// Whether it speaks of this destination, wherever that leads.
    #[must_use]
    pub fn names(&self, scheme: &Scheme, host: &str, port: u16) -> bool {
        self.scheme == *scheme && self.port.is_none_or(|allowed| allowed == port) && self.host.names(host)
    }

    /// Whether a connection may go to `address`, to which the host that it [names](Self::names) has led.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        match &self.host {
            HostPattern::Network(network) => network.contains(address),
            _ if self.private => is_unicast(address) || is_link_local(address),
            _ => is_public(address),
        }
    }
}

impl fmt::Display for OutboundRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if port == default_port(&self.scheme) => Ok(()),
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

/// An address that one host has, not link-local.
fn is_unicast(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast && !is_link_local(address)
}

fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether an address is anybody's on the Internet: not one of the special ones (RFC 6890 and the registries that it has founded).
/// IPv6 forms that carry an IPv4 address are what that address is.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        [0 | 127 | 10 | 240..=255, ..] => true, // this network, loopback, private, reserved and broadcast
        [100, 64..=127, ..] => true,            // shared by carriers (RFC 6598); some clouds' metadata
        [169, 254, ..] => true,                 // link-local; most clouds' metadata
        [172, 16..=31, ..] | [192, 168, ..] => true, // private (RFC 1918)
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => true, // protocol assignments, documentation, 6to4 relays
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true, // benchmarks, documentation
        [224..=239, ..] => true,                // multicast
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64 (RFC 6052)
        [0x2002, high, low, ..] => embedded(high, low),               // 6to4 (RFC 3056)
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => false,       // protocol assignments with Teredo, documentation
        [0x3fff, 0..=0xfff, ..] => false,                             // documentation (RFC 9637)
        [0x2000..=0x3fff, ..] => true,                                // global unicast, all there is (RFC 4291)
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn outbound(text: &str) -> OutboundRule {
        OutboundRule::parse(text).unwrap_or_else(|| panic!("`{text}` is a rule"))
    }

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "https://api.example.com",
            "https://*.internal.example:8443",
            "http://127.0.0.1:9000",
            "http://[::1]:80",
            "https://*",
            "https://*:*",
        ] {
            let shown = if text == "http://[::1]:80" { "http://[::1]" } else { text };
            assert_eq!(outbound(text).to_string(), shown);
        }
        for text in ["db.internal:5432", "10.0.0.0/8:*", "[fd00::/8]:6379", "[::1]:6379", "*.example.com:443", "*:25"] {
            assert_eq!(TcpRule::parse(text).expect("a rule").to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "api.example.com",
            "ftp://example.com",
            "https://",
            "https://example.com/path",
            "https://user@example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://example.com:+1",
            "https://a..b",
            "https://-a.b",
            "https://*.*",
            "https://a*.b",
            "https://exämple.com",
            "https://1.2.3",
            "http://2130706433",
            "http://[::1",
            "http://::1:80",
        ] {
            assert_eq!(OutboundRule::parse(text), None, "{text}");
        }
        for text in [
            "db.internal",
            "db.internal:",
            ":5432",
            "db.internal:http",
            "10.0.0.0/33:1",
            "::1:80",
            "fd00::/8:80",
            "2001:db8::2:1",
            "[127.0.0.1]:80",
        ] {
            assert_eq!(TcpRule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_the_same_in_capitals_and_with_a_dot() {
        let rule = outbound("https://API.example.com.");
        assert!(rule.names(&Scheme::HTTPS, "api.EXAMPLE.com", 443));
        assert!(rule.names(&Scheme::HTTPS, "api.example.com.", 443));
        assert!(!rule.names(&Scheme::HTTP, "api.example.com", 443));
        assert!(!rule.names(&Scheme::HTTPS, "api.example.com", 8443));
        assert!(!rule.names(&Scheme::HTTPS, "xapi.example.com", 443));
    }

    #[test]
    fn a_star_stands_for_one_label_or_more() {
        let rule = outbound("https://*.example.com:*");
        for (host, fits) in [
            ("a.example.com", true),
            ("a.b.example.com.", true),
            ("example.com", false),
            (".example.com", false),
            ("aexample.com", false),
            ("example.com.evil.test", false),
            ("é.com", false),
            ("192.0.2.1", false),
        ] {
            assert_eq!(rule.names(&Scheme::HTTPS, host, 1), fits, "{host}");
        }
    }

    #[test]
    fn an_address_is_named_literally_or_not_at_all() {
        let rule = outbound("http://127.0.0.1:9000");
        assert!(rule.names(&Scheme::HTTP, "127.0.0.1", 9000) && rule.allows(ip("127.0.0.1")));
        assert!(!rule.names(&Scheme::HTTP, "localhost", 9000));
        assert!(!rule.allows(ip("127.0.0.2")));
        assert!(rule.names(&Scheme::HTTP, "[::ffff:127.0.0.1]", 9000), "the same address, mapped");
        assert!(!outbound("http://*:*").allows(ip("127.0.0.1")));
    }

    #[test]
    fn a_name_leads_to_public_addresses_unless_the_rule_says_private() {
        let mut rule = outbound("https://api.example.com");
        let around_us =
            ["10.1.2.3", "127.0.0.1", "169.254.169.254", "fd00:ec2::254", "::1", "fe80::1", "100.100.100.200"];
        for address in around_us {
            assert!(!rule.allows(ip(address)), "{address}");
        }
        assert!(rule.allows(ip("8.8.8.8")) && rule.allows(ip("2606:4700::1111")));
        rule.private = true;
        for address in around_us {
            assert!(rule.allows(ip(address)), "{address}");
        }
        for address in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
            assert!(!rule.allows(ip(address)), "{address}");
        }
    }

    #[test]
    fn addresses_in_disguise_are_what_they_carry() {
        for address in
            ["::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "64:ff9b:1::1", "2001::1", "::127.0.0.1", "fec0::1"]
        {
            assert!(!is_public(ip(address)), "{address}");
        }
        assert!(
            is_public(ip("64:ff9b::808:808")) && is_public(ip("::ffff:8.8.8.8")) && is_public(ip("2002:808:808::"))
        );
    }

    #[test]
    fn tcp_goes_where_the_name_has_led() {
        let rule = TcpRule::parse("db.internal:5432").expect("a rule");
        assert!(rule.allows(ip("10.0.0.5"), 5432, &["db.internal"]));
        assert!(!rule.allows(ip("10.0.0.5"), 5433, &["db.internal"]));
        assert!(!rule.allows(ip("10.0.0.5"), 5432, &["other.internal"]), "resolved under another name");
        assert!(!rule.allows(ip("10.0.0.5"), 5432, &[]), "not resolved at all");
        assert!(!rule.allows(ip("169.254.169.254"), 5432, &["db.internal"]), "metadata");
        let below = TcpRule::parse("*.example.com:443").expect("a rule");
        assert!(below.allows(ip("8.8.8.8"), 443, &["a.example.com"]));
        assert!(!below.allows(ip("10.0.0.5"), 443, &["a.example.com"]), "a pattern does not lead inside");
        assert!(TcpRule::parse("10.0.0.0/8:*").expect("a rule").allows(ip("10.9.9.9"), 1, &[]));
    }
}
