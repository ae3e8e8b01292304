//! What is left to do after a swap: the requests on the revision that was replaced finish, or are cut when their time is over; what is
//! not kept is freed, which a weak reference proves. Then the receipt is complete.
//!
//! Pure bookkeeping: the steward looks in from time to time, and whoever made the swap may wait for the [`Report`].

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    guest::LoadedModule,
    in_flight::InFlight,
    receipt::{Drained, Freed, Receipt, milliseconds},
    revision::Revision,
};

/// How soon to look again for what nobody rings for: requests that were cut, a table that a thread is still reading.
const SOON: Duration = Duration::from_millis(5);

/// A swap on its way to a complete receipt.
pub(crate) struct Farewell {
    receipt: Receipt,
    draining: Option<Draining>,
    leaving: Vec<Leaving>,
    report: Arc<Report>,
}

struct Draining {
    revision: Arc<Revision>,
    since: Instant,
    until: Instant,
    /// Requests that had ended on it before.
    ended: u64,
    cut: u64,
    is_kept: bool,
}

/// A revision that nobody keeps, and that somebody may still be reading.
struct Leaving {
    number: u32,
    revision: Weak<Revision>,
    /// A module that other revisions have too is not freed with this one.
    module: Weak<LoadedModule>,
    bytes: u64,
}

impl Leaving {
    /// Of a revision that the caller lets go of.
    fn of(revision: &Arc<Revision>) -> Self {
        let (number, bytes) = (revision.number, revision.module.code_size());
        Self { number, revision: Arc::downgrade(revision), module: Arc::downgrade(&revision.module), bytes }
    }

    fn freed(self) -> Freed {
        Freed { revision: self.number, bytes: if self.module.strong_count() == 0 { self.bytes } else { 0 } }
    }
}

impl Farewell {
    /// `receipt` is complete but for what becomes of `replaced`, which the table does not have any more.
    pub(crate) fn new(receipt: Receipt, replaced: Arc<Revision>, is_kept: bool, drain: Duration) -> Self {
        let (since, ended) = (Instant::now(), replaced.tally().ended);
        let draining = Draining { revision: replaced, since, until: since + drain, ended, cut: 0, is_kept };
        Self { receipt, draining: Some(draining), leaving: Vec::new(), report: Arc::default() }
    }

    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report)
    }

    pub(crate) fn receipt(&mut self) -> &mut Receipt {
        &mut self.receipt
    }

    /// Whether it is on its way to this receipt.
    pub(crate) fn is_of(&self, receipt: &Receipt) -> bool {
        self.receipt.is_same_as(receipt)
    }

    /// Whether it still waits for requests on `revision`.
    pub(crate) fn drains(&self, revision: &Revision) -> bool {
        self.draining.as_ref().is_some_and(|draining| std::ptr::eq(&*draining.revision, revision))
    }

    /// The revision that it waits for, if nobody keeps it.
    pub(crate) fn draining(&self) -> Option<&Arc<Revision>> {
        self.draining.as_ref().filter(|draining| !draining.is_kept).map(|draining| &draining.revision)
    }

    /// The revision that it waits for is kept no longer, or is live again.
    pub(crate) fn part(&mut self, revision: &Revision, is_live: bool) {
        let Some(draining) = self.draining.as_mut().filter(|draining| std::ptr::eq(&*draining.revision, revision))
        else {
            return;
        };
        draining.is_kept = false;
        if is_live {
            self.draining = None;
            self.receipt.notes.push(format!("r{} is live again before it has drained", revision.number));
        }
    }

    /// A revision that has no requests is kept no longer.
    pub(crate) fn evict(&mut self, revision: &Arc<Revision>) {
        self.leaving.push(Leaving::of(revision));
    }

    /// Does what is due. The complete receipt, or when to look again (at the latest: requests that end ring).
    pub(crate) fn look_after(&mut self, in_flight: &InFlight) -> Result<Receipt, Instant> {
        let now = Instant::now();
        if let Some(draining) = &mut self.draining {
            if draining.revision.in_flight() > 0 {
                if now < draining.until {
                    return Err(draining.until);
                }
                draining.cut += in_flight.cut(&draining.revision);
                return Err(now + SOON);
            }
            let ended = draining.revision.tally().ended - draining.ended;
            let cut = draining.cut.min(ended);
            self.receipt.drained = Some(Drained {
                revision: draining.revision.number,
                ms: milliseconds(now - draining.since),
                finished: ended - cut,
                cut,
                kept: draining.is_kept,
            });
        }
        if let Some(Draining { revision, is_kept: false, .. }) = self.draining.take() {
            self.leaving.push(Leaving::of(&revision));
        }
        let freed = self.leaving.extract_if(.., |leaving| leaving.revision.strong_count() == 0);
        self.receipt.freed.extend(freed.map(Leaving::freed));
        if self.leaving.is_empty() { Ok(self.receipt.clone()) } else { Err(now + SOON) }
    }

    /// Nobody will look after it any more: tells who waits.
    pub(crate) fn end(self) {
        self.report.complete(self.receipt);
    }
}

/// Where the one who made a swap waits for its complete receipt.
#[derive(Default)]
pub(crate) struct Report(Mutex<Completion>);

#[derive(Default)]
struct Completion {
    receipt: Option<Receipt>,
    waiting: Vec<Waker>,
}

impl Report {
    pub(crate) fn complete(&self, receipt: Receipt) {
        let mut completion = self.lock();
        completion.receipt = Some(receipt);
        let waiting = std::mem::take(&mut completion.waiting);
        drop(completion);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Blocks until the drain is over; `None` if whoever wants to know has left (on a worker of a server's).
    pub(crate) fn wait(&self) -> Option<Receipt> {
        let complete = poll_fn(|cx| {
            let mut completion = self.lock();
            match &completion.receipt {
                Some(receipt) => Poll::Ready(receipt.clone()),
                None => {
                    completion.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        astra_server::wait(complete, None).ok()
    }

    fn lock(&self) -> MutexGuard<'_, Completion> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
