//! What raw sockets of one request may do: which names it may look up, and where it may connect to.
//!
//! An address says nothing about the name that led to it, so answers are remembered for the request: a rule with a name allows exactly the
//! addresses that this request was told under it. Asked by the worker that runs the guest; look-ups end on Tokio's threads. Knows
//! neither version of WASI.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    destination::{HostPattern, LONGEST_NAME, TcpRule},
    granted::Granted,
    resolver::ResolveError,
    watch::{self, WaitsFor},
};

/// The longest that a guest may write a name, in Unicode.
const LONGEST_WRITTEN: usize = 4 * LONGEST_NAME;
/// Answers that are remembered; then the oldest are forgotten.
const REMEMBERED: usize = 1024;

/// The network as one request may use it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    granted: Arc<Granted>,
    found: Arc<Mutex<Found>>,
}

/// Addresses, each with a name that it was found under, oldest first.
type Found = VecDeque<(IpAddr, Arc<str>)>;

/// A look-up under way; what is dropped is abandoned. To be polled where Tokio is entered.
pub(crate) type LookUp = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send>>;

/// Why a name is not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookUpError {
    /// It is neither a name nor an address.
    NoName,
    /// It was not granted.
    Denied,
}

impl Network {
    pub(crate) fn new(granted: &Arc<Granted>) -> Self {
        Self { granted: Arc::clone(granted), found: Arc::default() }
    }

    /// Whether there can be any connection; if not, that is logged.
    pub(crate) fn has_tcp(&self) -> bool {
        let has_rules = !self.granted.network.tcp.is_empty();
        if !has_rules {
            self.granted.denied("a TCP socket", Some(r#"network = { tcp = ["HOST:PORT"] }"#));
        }
        has_rules
    }

    /// Whether what nobody is granted may be had: never, and that is logged.
    pub(crate) fn refuse(&self, what: &str) -> bool {
        self.granted.refused(what);
        false
    }

    /// Starts to look up the addresses of `name`, best first and none of them IPv4 in IPv6's clothes. Names may be Unicode (IDNA); an address
    /// is its own and needs no grant.
    ///
    /// # Errors
    /// It will not be looked up.
    pub(crate) fn look_up(&self, name: &str) -> Result<LookUp, LookUpError> {
        if name.len() > LONGEST_WRITTEN {
            return Err(LookUpError::NoName);
        }
        let name: Arc<str> = match (url::Host::parse(name), name.parse::<Ipv6Addr>()) {
            (Ok(url::Host::Domain(name)), _) if name.len() <= LONGEST_NAME => name.into(),
            (Ok(url::Host::Ipv4(address)), _) => return Ok(known(address.into())),
            (Ok(url::Host::Ipv6(address)), _) | (Err(_), Ok(address)) => return Ok(known(address.into())),
            (Ok(url::Host::Domain(_)) | Err(_), _) => return Err(LookUpError::NoName),
        };
        let granted = &self.granted.network;
        let names_it = |pattern: &HostPattern| pattern.names(&name);
        if !granted.dns.iter().chain(granted.tcp.iter().map(|rule| &rule.host)).any(names_it) {
            let pattern = HostPattern::parse(&name).filter(HostPattern::is_literal);
            let rule = pattern.map(|pattern| format!(r#"network = {{ dns = ["{pattern}"] }}"#));
            self.granted.denied(&format!("looking up {name}"), rule.as_deref());
            return Err(LookUpError::Denied);
        }
        let (resolver, found) = (self.granted.resolver().clone(), Arc::clone(&self.found));
        Ok(Box::pin(watch::noting(WaitsFor::Network, async move {
            let mut addresses = resolver.resolve(&name).await?;
            addresses.iter_mut().for_each(|address| *address = address.to_canonical());
            remember(&mut found.lock().unwrap_or_else(PoisonError::into_inner), &addresses, &name);
            Ok(addresses)
        })))
    }

    /// Whether a connection may go there; if not, that is logged.
    pub(crate) fn may_connect(&self, to: SocketAddr) -> bool {
        let (address, port) = (to.ip().to_canonical(), to.port());
        let names: Vec<Arc<str>> = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.iter().filter(|(of, _)| *of == address).map(|(_, name)| Arc::clone(name)).collect()
        };
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let rules = &self.granted.network.tcp;
        let is_allowed = rules.iter().any(|rule| rule.allows(address, port, &names));
        if !is_allowed {
            // By a name only if it is one of those that connections were granted to: any other may have led there by chance.
            let of_rules = names.iter().filter(|name| rules.iter().any(|rule| rule.host.names(name)));
            let by_name = of_rules.filter_map(|name| TcpRule::parse(&format!("{name}:{port}")));
            let rule = by_name.into_iter().find(|rule| rule.allows(address, port, &names));
            let rule = rule.map_or_else(|| SocketAddr::new(address, port).to_string(), |rule| rule.to_string());
            let rule = format!(r#"network = {{ tcp = ["{rule}"] }}"#);
            self.granted.denied(&format!("a connection to {to}"), Some(&rule));
        }
        is_allowed
    }
}

fn known(address: IpAddr) -> LookUp {
    Box::pin(std::future::ready(Ok(vec![address.to_canonical()])))
}

fn remember(found: &mut Found, addresses: &[IpAddr], name: &Arc<str>) {
    for &address in addresses {
        if !found.iter().any(|(of, known)| (*of, known) == (address, name)) {
            if found.len() == REMEMBERED {
                found.pop_front();
            }
            found.push_back((address, Arc::clone(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use astra_server::Executor;

    use super::*;
    use crate::guest::{Grants, NetworkGrant};

    fn network(tcp: &[&str], dns: &[&str]) -> Network {
        let tcp = tcp.iter().map(|text| TcpRule::parse(text).expect("a rule")).collect();
        let dns = dns.iter().map(|text| HostPattern::parse(text).expect("a pattern")).collect();
        let grants = Grants { network: NetworkGrant { tcp, dns }, ..Grants::default() };
        Network::new(&Arc::new(Granted::new(&"test".into(), grants, &Executor::default())))
    }

    fn looked_up(network: &Network, name: &str) -> Result<Result<Vec<IpAddr>, ResolveError>, LookUpError> {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        network.look_up(name).map(|look_up| runtime.block_on(look_up))
    }

    fn to(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn names_are_looked_up_that_were_granted_and_those_that_tcp_names() {
        let network = network(&["db.internal:5432", "10.0.0.1:1"], &["*.example.com"]);
        for name in ["db.internal", "DB.internal.", "a.example.com", "ä.example.com", "10.0.0.2", "::1", "[::1]"] {
            assert!(network.look_up(name).is_ok(), "{name}");
        }
        for name in ["localhost", "example.com", "internal", "x.db.internal"] {
            assert_eq!(network.look_up(name).err(), Some(LookUpError::Denied), "{name}");
        }
        for name in ["", "a b", "a:1", "a/b", "1.2.3.4.5", "\0"] {
            assert_eq!(network.look_up(name).err(), Some(LookUpError::NoName), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_none() {
        let network = network(&[], &["*"]);
        for name in ["a".repeat(8 << 20), format!("{}.com", vec!["a".repeat(60); 5].join(".")), "é".repeat(600)] {
            assert_eq!(network.look_up(&name).err(), Some(LookUpError::NoName), "{} bytes", name.len());
        }
    }

    #[test]
    fn an_address_is_its_own_and_never_mapped() {
        let network = network(&[], &[]);
        for (name, address) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::ffff:1.2.3.4]", "1.2.3.4")] {
            assert_eq!(looked_up(&network, name), Ok(Ok(vec![address.parse().expect("an address")])));
        }
    }

    #[test]
    fn a_name_allows_what_it_was_resolved_to_and_only_then() {
        let network = network(&["localhost:80"], &[]);
        assert!(!network.may_connect(to("127.0.0.1:80")));
        let addresses = looked_up(&network, "localhost").expect("granted").expect("every system has it");
        for address in addresses {
            assert!(network.may_connect(SocketAddr::new(address, 80)));
            assert!(!network.may_connect(SocketAddr::new(address, 81)));
        }
        assert!(!network.may_connect(to("127.0.0.2:80")));
        assert!(!Network::new(&network.granted).may_connect(to("127.0.0.1:80")), "another request's");
    }

    #[test]
    fn a_mapped_address_is_the_address_that_it_carries() {
        let network = network(&["127.0.0.1:80"], &[]);
        assert!(network.may_connect(to("[::ffff:127.0.0.1]:80")));
        assert!(!network.may_connect(to("[::1]:80")));
    }

    #[test]
    fn answers_are_not_remembered_without_end() {
        let mut found = Found::new();
        for index in 0..2 * REMEMBERED {
            remember(&mut found, &["::1".parse().expect("an address")], &index.to_string().into());
        }
        remember(&mut found, &["::1".parse().expect("an address")], &(2 * REMEMBERED - 1).to_string().into());
        assert_eq!(found.len(), REMEMBERED);
        assert_eq!(&*found[0].1, REMEMBERED.to_string());
    }
}
