//! The PROXY protocol, version 2 (HAProxy's `proxy-protocol.txt`): who the client of a proxy is, which the proxy says in front of
//! everything else. Pure.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, and the length of what follows.
const FIXED: usize = 16;
/// The longest that we take: addresses have at most 216 bytes, and what may follow them (TLS, in particular) is of no use to us.
const LONGEST: usize = 4096;

/// What there is of a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// So many bytes are missing, at least; there is nothing else in them.
    Needs(usize),
    /// The whole header, with the client's address and the one that it connected to; none if the proxy speaks for itself, or of a family
    /// without addresses.
    Is(Option<(SocketAddr, SocketAddr)>),
}

/// It is no header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoHeader;

/// Reads what has come so far of a header.
pub(crate) fn read(bytes: &[u8]) -> Result<Header, NoHeader> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(NoHeader);
    }
    let Some(&[.., command, family, high, low]) = bytes.first_chunk::<FIXED>() else {
        return Ok(Header::Needs(FIXED - bytes.len()));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST || command >> 4 != 2 {
        return Err(NoHeader);
    }
    let Some(rest) = bytes.get(FIXED..FIXED + length) else { return Ok(Header::Needs(FIXED + length - bytes.len())) };
    match (command & 0xf, family) {
        // The proxy's own, such as a health check.
        (0, _) => Ok(Header::Is(None)),
        (1, 0x11) => addresses::<4>(rest, |octets| Ipv4Addr::from(octets).into()).map(Header::Is),
        (1, 0x21) => addresses::<16>(rest, |octets| Ipv6Addr::from(octets).into()).map(Header::Is),
        // Unspecified, datagrams, Unix sockets: as if nothing had been said (section 2.2).
        (1, _) => Ok(Header::Is(None)),
        _ => Err(NoHeader),
    }
}

/// Two addresses, then two ports.
fn addresses<const N: usize>(
    rest: &[u8],
    ip: impl Fn([u8; N]) -> std::net::IpAddr,
) -> Result<Option<(SocketAddr, SocketAddr)>, NoHeader> {
    let (source, rest) = rest.split_first_chunk::<N>().ok_or(NoHeader)?;
    let (target, rest) = rest.split_first_chunk::<N>().ok_or(NoHeader)?;
    let &[a, b, c, d] = rest.first_chunk::<4>().ok_or(NoHeader)?;
    let at = |octets: &[u8; N], port| SocketAddr::new(ip(*octets), u16::from_be_bytes(port));
    Ok(Some((at(source, [a, b]), at(target, [c, d]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 7, 0x1f, 0x90, 0, 80];

    #[test]
    fn addresses_of_both_families_are_read_and_what_follows_them_is_passed_over() {
        let is = |client: &str, ours: &str| {
            Ok(Header::Is(Some((client.parse().expect("an address"), ours.parse().expect("an address")))))
        };
        let more = [&IPV4[..], &[4, 0, 1, 0]].concat();
        assert_eq!(read(&header(0x21, 0x11, &IPV4)), is("192.0.2.1:8080", "198.51.100.7:80"));
        assert_eq!(read(&header(0x21, 0x11, &more)), is("192.0.2.1:8080", "198.51.100.7:80"));
        let mut ipv6 = [0; 36];
        (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 1, 2);
        assert_eq!(read(&header(0x21, 0x21, &ipv6)), is("[::1]:1", "[::2]:2"));
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_or_names_no_address_says_nothing() {
        for header in
            [header(0x20, 0x11, &IPV4), header(0x20, 0, &[]), header(0x21, 0, &[]), header(0x21, 0x31, &[0; 216])]
        {
            assert_eq!(read(&header), Ok(Header::Is(None)));
        }
    }

    #[test]
    fn of_a_header_in_pieces_it_is_known_how_much_is_missing() {
        let whole = header(0x21, 0x11, &IPV4);
        for length in 0..whole.len() {
            let missing = if length < FIXED { FIXED - length } else { whole.len() - length };
            assert_eq!(read(&whole[..length]), Ok(Header::Needs(missing)), "{length}");
        }
    }

    #[test]
    fn what_is_no_header_is_told_as_soon_as_it_shows() {
        let mut wrong = header(0x21, 0x11, &IPV4);
        wrong[5] = b' ';
        for bytes in [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"\r\nG".to_vec(),
            b"PROXY TCP4 192.0.2.1 198.51.100.7 8080 80\r\n".to_vec(),
            wrong,
            header(0x11, 0x11, &IPV4),
            header(0x22, 0x11, &IPV4),
            header(0x21, 0x11, &IPV4[..11]),
            header(0x21, 0x21, &IPV4),
            [&SIGNATURE[..], &[0x21, 0x11, 0x10, 0x01]].concat(),
        ] {
            assert_eq!(read(&bytes), Err(NoHeader), "{bytes:?}");
        }
    }
}
