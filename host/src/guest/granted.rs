//! Grants as they are used: what all requests of a handler share because of what it was granted.
//!
//! Made when a handler is configured, and again when its grants change; a swap of its module leaves it alone, so that look-ups stay
//! bounded over revisions. Used by the workers that run its guests.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{grants::Grants, resolver::Resolver};

/// How long a denial that has been logged is not logged again.
const QUIET: Duration = Duration::from_secs(60);
/// Denials that are remembered; beyond that they are not logged at all.
const REMEMBERED: usize = 256;

/// What a handler was granted, ready to be used.
#[derive(Debug)]
pub struct Granted {
    handler: Arc<str>,
    grants: Grants,
    resolver: Resolver,
    denied: Mutex<HashMap<String, Instant>>,
}

impl Granted {
    /// Makes the grants of `handler` ready.
    #[must_use]
    pub fn new(handler: &Arc<str>, grants: Grants) -> Self {
        Self { handler: Arc::clone(handler), grants, resolver: Resolver::new(), denied: Mutex::default() }
    }

    /// Whose grants these are.
    pub(crate) fn handler(&self) -> &Arc<str> {
        &self.handler
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Logs that a guest was denied `what` (`a connection to 10.0.0.5:5432`), once a minute each. `rule` is what would allow it, as it is
    /// written in the configuration (`outbound = ["https://api.example.com"]`).
    pub(crate) fn denied(&self, what: &str, rule: &str) {
        if self.is_news(what, Instant::now()) {
            // Debug quotes what may be the guest's text.
            log::warn!("handler `{}` was denied {what:?}; this would allow it: {rule}", self.handler);
        }
    }

    fn is_news(&self, what: &str, now: Instant) -> bool {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() >= REMEMBERED {
            denied.retain(|_, since| now.duration_since(*since) < QUIET);
        }
        match denied.get(what) {
            Some(since) if now.duration_since(*since) < QUIET => return false,
            None if denied.len() >= REMEMBERED => return false,
            _ => denied.insert(what.to_owned(), now),
        };
        true
    }
}

impl Deref for Granted {
    type Target = Grants;

    fn deref(&self) -> &Grants {
        &self.grants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_news_once_a_minute() {
        let granted = Granted::new(&"test".into(), Grants::default());
        let now = Instant::now();
        assert!(granted.is_news("a", now));
        assert!(!granted.is_news("a", now + QUIET / 2));
        assert!(granted.is_news("b", now + QUIET / 2));
        assert!(granted.is_news("a", now + QUIET));
    }

    #[test]
    fn what_a_guest_makes_up_is_not_remembered_without_end() {
        let granted = Granted::new(&"test".into(), Grants::default());
        let now = Instant::now();
        for index in 0..2 * REMEMBERED {
            granted.is_news(&index.to_string(), now);
        }
        assert_eq!(granted.denied.lock().expect("not poisoned").len(), REMEMBERED);
        assert!(granted.is_news("later", now + QUIET));
    }
}
