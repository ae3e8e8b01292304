//! How many connections each peer has, where that is bounded. Changed when a connection is accepted and when its socket is closed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;

use crate::sync::lock;

pub(crate) struct Peers {
    max: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

impl Peers {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, connections: Mutex::default() }
    }

    /// Counts a connection, unless its peer has too many. Returns what `leave` wants.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<IpAddr> {
        let peer = peer(address);
        let mut connections = lock(&self.connections);
        let count = connections.entry(peer).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(peer)
    }

    pub(crate) fn leave(&self, peer: IpAddr) {
        let mut connections = lock(&self.connections);
        if let Some(count) = connections.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&peer);
            }
        }
    }
}

/// Who an address belongs to: of IPv6 one network of 64 bits, all of which any host has at its disposal (RFC 4291 section 2.5.4).
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer_and_counts_go_when_their_peer_does() {
        let peers = Peers::new(1);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let first = peers.enter(address("2001:db8:0:1::1")).expect("the first");
        assert_eq!(peers.enter(address("2001:db8:0:1:ffff::2")), None);
        assert!(peers.enter(address("2001:db8:0:2::1")).is_some());
        peers.leave(first);
        assert!(peers.enter(address("2001:db8:0:1::3")).is_some());
        let mapped = peers.enter(address("::ffff:192.0.2.1")).expect("another");
        assert_eq!(peers.enter(address("192.0.2.1")), None);
        assert!(peers.enter(address("192.0.2.2")).is_some());
        peers.leave(mapped);
        assert_eq!(lock(&peers.connections).len(), 3);
    }
}
