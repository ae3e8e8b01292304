//! What the host makes of a request's head before a guest sees it: nobody but the host says who the peer is, which id the request has, and what
//! concerns the connection; all else passes through. The first byte chooses peer and trusted proxies, then comes a field a line.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use astra_host::{forwarded::Network, fuzzing};
use http::{HeaderMap, HeaderName, HeaderValue};

const PEERS: [&str; 4] = ["192.0.2.7:4711", "[2001:db8::1]:80", "[::ffff:192.0.2.1]:80", ""];
const TRUSTED: [&str; 4] = ["", "192.0.2.0/24", "::/0", "2001:db8::1"];

fn read(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// The elements of a list in which commas may be quoted (RFC 9110 section 5.6.4).
fn elements(list: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = vec![Vec::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in list {
        match byte {
            b',' if !is_quoted => {
                elements.push(Vec::new());
                continue;
            }
            b'"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = is_quoted && !is_escaped && *byte == b'\\';
        elements.last_mut().expect("there is one").push(*byte);
    }
    elements.into_iter().map(|element| element.trim_ascii().to_vec()).collect()
}

/// Those that `connection` names.
fn named(headers: &HeaderMap) -> Vec<String> {
    let options = values(headers, "connection").join(&b","[..]);
    let options = options
        .split(|byte| *byte == b',')
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase());
    options.filter(|option| option != "host" && option != "content-length").collect()
}

fn contains(network: &Network, text: &str, address: IpAddr) -> bool {
    let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, bits.parse::<usize>().ok()));
    let base: IpAddr = base.parse().expect("an address");
    let base = if bits.is_none() { base.to_canonical() } else { base };
    let bits_of = |address: IpAddr| -> Vec<bool> {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        octets.iter().flat_map(|octet| (0..8).map(move |bit| octet >> (7 - bit) & 1 == 1)).collect()
    };
    let (ours, theirs) = (bits_of(base), bits_of(address.to_canonical()));
    let bits = bits.unwrap_or(ours.len());
    let is = ours.len() == theirs.len() && ours[..bits] == theirs[..bits];
    assert_eq!(network.contains(address), is, "{text} and {address}");
    is
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [choice, lines @ ..] = data else { return };
    let peer: Option<SocketAddr> = PEERS[usize::from(choice & 3)].parse().ok();
    let trusted = TRUSTED[usize::from(choice >> 2 & 3)];
    let mut networks: Vec<Network> = trusted.parse().into_iter().collect();
    let is_unix = choice & 16 != 0;
    networks.extend(is_unix.then_some(Network::Unix));
    let is_trusted = match peer {
        Some(peer) => {
            networks.first().is_some_and(|network| !trusted.is_empty() && contains(network, trusted, peer.ip()))
        }
        None => is_unix,
    };

    let before = read(lines);
    let mut after = before.clone();
    let (id, client_id) = fuzzing::prepare(&mut after, peer, "http", &networks);

    let gone = named(&before);
    let is_gone = |name: &str| gone.iter().any(|gone| gone == name);
    assert_eq!(values(&after, "x-request-id"), [id.as_bytes()]);
    assert_eq!(values(&after, "x-client-request-id"), client_id.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>());
    if let Some(client_id) = client_id {
        assert_eq!(values(&before, "x-request-id"), [client_id.as_bytes()]);
        assert!(client_id.as_bytes().iter().all(u8::is_ascii_graphic) && client_id.len() <= 128);
    }
    let ours = match peer {
        Some(peer) => format!("for=\"{}\";proto=http", SocketAddr::new(peer.ip().to_canonical(), peer.port())),
        None => "for=unknown;proto=http".to_owned(),
    };
    let [forwarded] = &values(&after, "forwarded")[..] else { panic!("not one `forwarded`") };
    let forwarded = elements(forwarded);
    assert_eq!(forwarded.last().map(Vec::as_slice), Some(ours.as_bytes()), "the last word is not the host's");
    if !is_trusted {
        assert_eq!(forwarded.len(), 1);
    }
    let is_claim = |name: &str| name == "forwarded" || name.starts_with("x-forwarded-");
    for name in after.keys().map(HeaderName::as_str).filter(|name| is_claim(name) && *name != "forwarded") {
        assert!(is_trusted, "{name} is a stranger's");
        let (mut list, found) = (values(&before, name).join(&b", "[..]), values(&after, name).join(&b", "[..]));
        if let (Some(peer), "x-forwarded-for") = (peer, name) {
            list = [&list[..], b", ", peer.ip().to_canonical().to_string().as_bytes()].concat();
        }
        assert_eq!(found, list, "{name}");
    }
    let is_ours = |name: &str| matches!(name, "x-request-id" | "x-client-request-id" | "proxy") || is_claim(name);
    for name in before.keys().chain(after.keys()).map(HeaderName::as_str).filter(|name| !is_ours(name)) {
        let expected = if is_gone(name) { Vec::new() } else { values(&before, name) };
        assert_eq!(values(&after, name), expected, "{name}");
    }
    assert!(!after.contains_key("proxy"));

    let mut cleaned = before.clone();
    fuzzing::clean(&mut cleaned);
    for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"] {
        assert!(!cleaned.contains_key(name), "{name}");
    }
    assert!(!cleaned.keys().any(|name| is_gone(name.as_str())));

    for text in lines.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let Ok(network) = text.parse::<Network>() else { continue };
        assert_eq!(network.to_string().parse(), Ok(network));
        for address in PEERS.into_iter().filter_map(|peer| peer.parse().ok()).map(|peer: SocketAddr| peer.ip()) {
            contains(&network, text, address);
        }
    }
});
