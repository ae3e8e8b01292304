//! Looks names up for guests, with the system's own resolver (`getaddrinfo`), which knows hosts files and search lists too.
//!
//! A look-up blocks a thread of Tokio's and cannot be cut, so a handler may have only a few at a time, those that their guests have
//! given up included; others wait for one to end, up to their guests' deadlines.

use std::{net::IpAddr, sync::Arc};

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use tokio::sync::Semaphore;

/// Look-ups that a handler may have under way. They share Tokio's threads for what blocks (`engine.rs`).
const AT_A_TIME: usize = 8;

/// One handler's look-ups. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Resolver(Arc<Semaphore>);

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResolveError {
    /// There is no such name, or it has no addresses.
    NotFound,
    /// Nobody could be asked, this time.
    Temporary,
    /// It will not work the next time either.
    Permanent,
}

impl Resolver {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }

    /// The addresses of `name`, best first, at least one. An address in text is its own.
    ///
    /// To be polled where Tokio is entered.
    ///
    /// # Errors
    /// There are none.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| ResolveError::Temporary)?;
        let name = name.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            look_up(&name)
        });
        looked_up.await.unwrap_or(Err(ResolveError::Temporary))
    }
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(name), None, Some(hints)).map_err(|error| match error.kind() {
        LookupErrorKind::NoName | LookupErrorKind::NoData => ResolveError::NotFound,
        LookupErrorKind::Again | LookupErrorKind::Memory | LookupErrorKind::System => ResolveError::Temporary,
        _ => ResolveError::Permanent,
    })?;
    let mut addresses = Vec::new();
    for entry in found.flatten() {
        let address = entry.sockaddr.ip();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_resolved_and_what_is_neither_is_not_found() {
        let runtime = tokio::runtime::Runtime::new().expect("starts");
        let resolver = Resolver::new();
        let resolve = |name: &str| runtime.block_on(resolver.resolve(name));
        assert!(resolve("localhost").expect("every system has it").iter().all(IpAddr::is_loopback));
        assert_eq!(resolve("::1"), Ok(vec![IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]));
        assert!(matches!(resolve("does-not-exist.invalid"), Err(ResolveError::NotFound | ResolveError::Temporary)));
    }
}
