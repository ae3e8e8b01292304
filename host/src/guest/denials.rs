//! What guests of a handler were denied, told to the operator, and not too often. Called on any thread.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a denial that has been logged is not logged again.
const QUIET: Duration = Duration::from_secs(60);
/// Denials that are remembered; beyond that they are not logged at all. Their texts are short: a host is no longer than names can be.
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
        self.tell_with(what, format_args!("this would allow it: {rule}"));
    }

    /// The same of what there is no rule for, with what there is to say about that instead.
    pub(crate) fn tell_with(&self, what: &str, remark: impl Display) {
        if self.is_news(what, Instant::now()) {
            // Debug quotes what may be the guest's text.
            log::warn!("handler `{}` was denied {what:?}; {remark}", self.handler);
            if self.is_full() {
                log::warn!("handler `{}` is denied so much that no more of it is shown for a minute", self.handler);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).len() >= REMEMBERED
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
        assert!(denials.is_full());
        assert_eq!(denials.told.lock().expect("not poisoned").len(), REMEMBERED);
        assert!(denials.is_news("later", now + QUIET));
    }
}
