//! Puts one thread to sleep until somebody unparks it. A flag of its own makes it immune to the wake-ups that other users of
//! `std::thread::park` cause.

use std::sync::Arc;
use std::task::Wake;
use std::time::Instant;

use crate::sync::{AtomicBool, Ordering, Thread, current, park, park_timeout};

/// Belongs to the thread that made it; everyone else only unparks.
#[derive(Debug)]
pub(crate) struct Parker {
    thread: Thread,
    unparked: AtomicBool,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self { thread: current(), unparked: AtomicBool::new(false) }
    }

    /// Sleeps until `unpark` was called since the last `park` or `take` (possibly before this call).
    pub(crate) fn park(&self) {
        while !self.take() {
            park();
        }
    }

    /// Like `park`, but not past `until`. False: the time came first.
    pub(crate) fn park_until(&self, until: Option<Instant>) -> bool {
        let Some(until) = until else {
            self.park();
            return true;
        };
        loop {
            if self.take() {
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            park_timeout(left);
        }
    }

    /// Whether `unpark` was called since the last time; forgets it.
    pub(crate) fn take(&self) -> bool {
        self.unparked.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn unpark(&self) {
        if !self.unparked.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unpark();
    }
}
