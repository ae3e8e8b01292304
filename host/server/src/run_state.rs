//! The four states of something that is polled by whichever worker is free: a connection, an HTTP/2 stream, a listener.
//!
//! ```text
//!          notify            start              finish(pending)
//!   IDLE ---------> QUEUED ---------> RUNNING ----------------> IDLE
//!                                     |     ^
//!                              notify |     | (polled again by the queue)
//!                                     v     |
//!                                   NOTIFIED -- finish(pending) --> QUEUED
//! ```
//!
//! Whoever moves it to QUEUED pushes it to the run queue, whoever moves it to RUNNING polls it: never two at once, and no
//! notification is lost. A waiting request may take its own connection past the queue (`steal`); the entry it leaves in the
//! queue is then stale and `start` refuses it.

use crate::sync::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
const NOTIFIED: u8 = 3;

/// Who may poll, and whether somebody asked for it again meanwhile. All orderings are SeqCst: a notifier's writes (readiness,
/// a reply) must be seen by the run that its notification causes or joins.
#[derive(Debug)]
pub(crate) struct RunState(AtomicU8);

impl RunState {
    pub(crate) fn idle() -> Self {
        Self(AtomicU8::new(IDLE))
    }

    /// Asks for a run. True: the caller must push it to the run queue.
    #[must_use]
    pub(crate) fn notify(&self) -> bool {
        let mut now = self.0.load(Ordering::SeqCst);
        loop {
            let next = match now {
                IDLE => QUEUED,
                RUNNING => NOTIFIED,
                // Somebody else's push, or the present runner, will see what we wrote: but only if it reads after us. The
                // exchange below, even of a state for itself, orders the two.
                _ => now,
            };
            match self.0.compare_exchange(now, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return now == IDLE,
                Err(seen) => now = seen,
            }
        }
    }

    /// Takes it from the run queue. False: the entry was stale, nothing is to be done.
    #[must_use]
    pub(crate) fn start(&self) -> bool {
        self.0.compare_exchange(QUEUED, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Takes it out of turn, queued or not. False: somebody is running it now.
    #[must_use]
    pub(crate) fn steal(&self) -> bool {
        self.0.compare_exchange(IDLE, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok() || self.start()
    }

    /// Ends a run. True: it was notified meanwhile and the caller must push it to the run queue.
    #[must_use]
    pub(crate) fn finish(&self) -> bool {
        if self.0.compare_exchange(RUNNING, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return false;
        }
        self.0.swap(QUEUED, Ordering::SeqCst);
        true
    }
}
