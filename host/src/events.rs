//! What happens to handlers, told to whoever listens: the log, and those who follow `GET /v1/events`.
//!
//! The last 256 events can be asked for; who is slower than that misses some. Any thread may tell, any may wait.

use std::{
    collections::VecDeque,
    fmt::Display,
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{log_line, receipt::Receipt, short_text::shortened};

/// Events that are remembered.
const KEPT: usize = 256;
/// Bytes of an event's text: the reason for a failure may have names in it that are a module's.
const TEXT: usize = 4 * 1024;

/// One thing that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Event {
    /// From 1, without gaps.
    pub id: u64,
    /// When, RFC 3339.
    pub time: String,
    /// What a receipt calls its action (`swap`, `rollback`, `canary`, `promote`, `abort`, `add`, `adjust`, `remove`), or `drained`, `guard`,
    /// `reload`, `kill`, `upgrade`, `state` (what is recorded), `failed`.
    pub kind: String,
    /// The handler that it happened to; none if it concerns the host.
    pub handler: Option<String>,
    /// For people.
    pub text: String,
    /// The facts, if there is a receipt.
    pub receipt: Option<Receipt>,
}

/// Whether somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    Normal,
    Loud,
}

/// The events of one host.
#[derive(Debug, Default)]
pub struct Events {
    log: Mutex<EventLog>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct EventLog {
    last: u64,
    events: VecDeque<Event>,
    has_ended: bool,
}

impl Events {
    /// Tells the log and all who listen.
    pub(crate) fn tell(
        &self,
        urgency: Urgency,
        kind: &str,
        handler: Option<&str>,
        text: impl Display,
        receipt: Option<Receipt>,
    ) {
        let text = shortened(text, TEXT);
        let level = if urgency == Urgency::Loud { log::Level::Warn } else { log::Level::Info };
        match handler {
            Some(handler) => log::log!(level, "handler `{handler}`: {kind}: {text}"),
            None => log::log!(level, "{kind}: {text}"),
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.last += 1;
        let event = Event {
            id: log.last,
            time: now(),
            kind: kind.to_owned(),
            handler: handler.map(str::to_owned),
            text,
            receipt,
        };
        if log.events.len() == KEPT {
            log.events.pop_front();
        }
        log.events.push_back(event);
        drop(log);
        self.news.notify_all();
    }

    /// The number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).last
    }

    /// The events after number `id` that are remembered, waiting for one at most so long. `None` once there will be no more.
    pub fn after(&self, id: u64, patience: Duration) -> Option<Vec<Event>> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, _) = self
            .news
            .wait_timeout_while(log, patience, |log| log.last <= id && !log.has_ended)
            .unwrap_or_else(PoisonError::into_inner);
        let events: Vec<Event> = log.events.iter().filter(|event| event.id > id).cloned().collect();
        if events.is_empty() && log.has_ended { None } else { Some(events) }
    }

    /// There will be no more: who waits need not.
    pub(crate) fn end(&self) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).has_ended = true;
        self.news.notify_all();
    }
}

/// RFC 3339 with milliseconds, UTC.
pub(crate) fn now() -> String {
    log_line::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_late_gets_what_is_remembered() {
        let events = Events::default();
        for n in 0..KEPT + 2 {
            events.tell(Urgency::Normal, "swap", Some("hello"), n.to_string(), None);
        }
        let all = events.after(0, Duration::ZERO).expect("it goes on");
        assert_eq!((all.len(), all[0].id, all[0].text.as_str()), (KEPT, 3, "2"));
        assert!(events.after(events.last(), Duration::ZERO).expect("it goes on").is_empty());
        events.tell(Urgency::Normal, "failed", None, "x".repeat(1 << 20), None);
        assert!(events.after(events.last() - 1, Duration::ZERO).expect("it goes on")[0].text.len() < TEXT + 4);
        events.end();
        assert!(events.after(events.last(), Duration::from_secs(3600)).is_none());
    }
}
