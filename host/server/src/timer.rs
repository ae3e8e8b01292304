//! Deadlines: a map from time to waker, kept by the reactor, which runs what is due after each poll (and the monitor at each
//! tick, should nobody poll). Millisecond grain; a deadline never fires early.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::lock;
use crate::workers::Workers;

/// A millisecond of the timers' own clock; 0 is when they were made.
pub(crate) type Millis = u64;

/// Whole milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(NEVER)
}

pub(crate) const NEVER: Millis = u64::MAX;

/// Names one entry, so that it can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey {
    at: Millis,
    id: u64,
}

impl TimerKey {
    pub(crate) fn at(self) -> Millis {
        self.at
    }
}

#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    entries: Mutex<Entries>,
    recent: AtomicU64,
    /// The earliest entry, or `NEVER`. Written under the lock of `entries`; read by the poller without it.
    first: AtomicU64,
}

#[derive(Debug, Default)]
struct Entries {
    wakers: BTreeMap<TimerKey, Waker>,
    next_id: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        let (recent, first) = (AtomicU64::new(0), AtomicU64::new(NEVER));
        Self { start: Instant::now(), entries: Mutex::default(), recent, first }
    }

    /// Reads the clock.
    pub(crate) fn now(&self) -> Millis {
        let now = self.millis(Instant::now(), false);
        // Never back: whoever a timer has woken must find that its time has come, whatever another thread has read before.
        self.recent.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// What the clock said when it was last read: after the last poll of the reactor, or at the last tick while requests run. Good
    /// enough for time-outs of seconds, and much cheaper. Relaxed, since any recent value will do.
    pub(crate) fn recent(&self) -> Millis {
        self.recent.load(Ordering::Relaxed)
    }

    /// `at` on this clock, rounded up, since a deadline must not fire early.
    pub(crate) fn deadline(&self, at: Instant) -> Millis {
        self.millis(at, true)
    }

    fn millis(&self, at: Instant, round_up: bool) -> Millis {
        let nanos = at.saturating_duration_since(self.start).as_nanos();
        let millis = if round_up { nanos.div_ceil(1_000_000) } else { nanos / 1_000_000 };
        u64::try_from(millis).unwrap_or(NEVER - 1)
    }

    /// Wakes `waker` at `at`. The second value says that this is now the earliest, so a sleeping poller must hear of it.
    pub(crate) fn add(&self, at: Millis, waker: Waker) -> (TimerKey, bool) {
        let mut entries = lock(&self.entries);
        entries.next_id += 1;
        let key = TimerKey { at, id: entries.next_id };
        entries.wakers.insert(key, waker);
        let earliest = at < self.first.load(Ordering::SeqCst);
        if earliest {
            self.first.store(at, Ordering::SeqCst);
        }
        (key, earliest)
    }

    pub(crate) fn remove(&self, key: TimerKey) {
        let mut entries = lock(&self.entries);
        if entries.wakers.remove(&key).is_some() {
            self.note_first(&entries);
        }
    }

    fn note_first(&self, entries: &Entries) {
        let first = entries.wakers.first_key_value().map_or(NEVER, |(key, _)| key.at);
        self.first.store(first, Ordering::SeqCst);
    }

    /// When the poller must be back at the latest.
    pub(crate) fn first(&self) -> Millis {
        self.first.load(Ordering::SeqCst)
    }

    /// Wakes all that is due.
    pub(crate) fn fire(&self) {
        let now = self.now();
        if self.first() > now {
            return;
        }
        self.fire_until(now);
    }

    /// Wakes all, due or not.
    pub(crate) fn fire_all(&self) {
        self.fire_until(NEVER - 1);
    }

    fn fire_until(&self, last: Millis) {
        let due = {
            let mut entries = lock(&self.entries);
            let later = entries.wakers.split_off(&TimerKey { at: last + 1, id: 0 });
            let due = std::mem::replace(&mut entries.wakers, later);
            self.note_first(&entries);
            due
        };
        for waker in due.into_values() {
            waker.wake();
        }
    }
}

/// A future that is ready at a point in time; also hyper's `Sleep`.
pub(crate) struct Sleep {
    workers: Weak<Workers>,
    at: Instant,
    entry: Option<(TimerKey, Waker)>,
}

impl Sleep {
    pub(crate) fn until(workers: Weak<Workers>, at: Instant) -> Self {
        Self { workers, at, entry: None }
    }

    fn cancel(&mut self) {
        if let (Some((key, _)), Some(workers)) = (self.entry.take(), self.workers.upgrade()) {
            workers.remove_timer(key);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            self.cancel();
            return Poll::Ready(());
        }
        // Whoever only wants to know.
        if cx.waker().will_wake(Waker::noop()) {
            return Poll::Pending;
        }
        if self.entry.as_ref().is_none_or(|(_, waker)| !waker.will_wake(cx.waker())) {
            self.cancel();
            // After the server has ended nothing fires any more, and nothing polls either.
            if let Some(workers) = self.workers.upgrade() {
                let key = workers.add_timer(self.at, cx.waker().clone());
                self.entry = Some((key, cx.waker().clone()));
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl hyper::rt::Sleep for Sleep {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_time_does_not_go_back() {
        let timers = Timers::new();
        timers.recent.store(1_000_000, Ordering::Relaxed);
        assert!(timers.now() < 1_000_000);
        assert_eq!(timers.recent(), 1_000_000);
    }

    #[test]
    fn a_deadline_is_rounded_up_and_removed_entries_do_not_wake_the_poller() {
        let timers = Timers::new();
        assert_eq!(timers.deadline(timers.start + Duration::from_micros(1500)), 2);
        let (early, first) = timers.add(5, Waker::noop().clone());
        assert!(first);
        let (_, first) = timers.add(9, Waker::noop().clone());
        assert!(!first);
        assert_eq!(timers.first(), 5);
        timers.remove(early);
        assert_eq!(timers.first(), 9);
    }
}
