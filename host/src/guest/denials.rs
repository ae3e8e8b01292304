//! What guests of a handler were denied, told to the operator, and not too often. Called on any thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a denial that has been logged is not logged again.
const QUIET: Duration = Duration::from_secs(60);
/// Denials that are remembered; beyond that they are not logged at all.
const REMEMBERED: usize = 256;

/// One handler's denials.
#[derive(Debug)]
pub(crate) struct Denials {
    handler: Arc<str>,
    told: Mutex<HashMap<String, Instant>>,
}

impl Denials {
    pub(crate) fn new(handler: &Arc<str>) -> Self {
        Self { handler: Arc::clone(handler), told: Mutex::default() }
    }

    /// Whose denials these are.
    pub(crate) fn handler(&self) -> &Arc<str> {
        &self.handler
    }

    /// Logs that a guest was denied `what` (`a connection to 10.0.0.5:5432`), once a minute each. `rule` is what would allow it, as it is
    /// written in the configuration (`outbound = ["https://api.example.com"]`).
    pub(crate) fn tell(&self, what: &str, rule: &str) {
        if self.is_news(what, Instant::now()) {
            // Debug quotes what may be the guest's text.
            log::warn!("handler `{}` was denied {what:?}; this would allow it: {rule}", self.handler);
        }
    }

    fn is_news(&self, what: &str, now: Instant) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= REMEMBERED {
            told.retain(|_, since| now.duration_since(*since) < QUIET);
        }
        match told.get(what) {
            Some(since) if now.duration_since(*since) < QUIET => return false,
            None if told.len() >= REMEMBERED => return false,
            _ => told.insert(what.to_owned(), now),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_news_once_a_minute() {
        let denials = Denials::new(&"test".into());
        let now = Instant::now();
        assert!(denials.is_news("a", now));
        assert!(!denials.is_news("a", now + QUIET / 2));
        assert!(denials.is_news("b", now + QUIET / 2));
        assert!(denials.is_news("a", now + QUIET));
    }

    #[test]
    fn what_a_guest_makes_up_is_not_remembered_without_end() {
        let denials = Denials::new(&"test".into());
        let now = Instant::now();
        for index in 0..2 * REMEMBERED {
            denials.is_news(&index.to_string(), now);
        }
        assert_eq!(denials.told.lock().expect("not poisoned").len(), REMEMBERED);
        assert!(denials.is_news("later", now + QUIET));
    }
}
