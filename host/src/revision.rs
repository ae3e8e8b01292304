//! A revision: one loaded module with the settings of its handler, numbered, and never changed once it is published.
//!
//! Requests pin the revision they start on, and count themselves there. Any thread may pin; whoever ends the last request of a
//! revision that has been replaced rings the [`Bell`], so that draining is over as soon as it is.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
};

use crate::{
    config::HandlerConfig,
    events::now,
    guest::{Granted, Limits, LoadedModule},
    status::RevisionStatus,
};

/// One immutable revision of a handler.
pub(crate) struct Revision {
    pub(crate) handler: Arc<str>,
    pub(crate) number: u32,
    pub(crate) module: Arc<LoadedModule>,
    /// Where the module came from: a path, or the name of what was uploaded.
    pub(crate) source: String,
    since: String,
    pub(crate) granted: Arc<Granted>,
    pub(crate) limits: Limits,
    /// Whether answers 500 to 599 of its guests are failures.
    pub(crate) counts_5xx: bool,
    /// Requests that were started and ended on it, and those of them that failed. SeqCst: `Tables` needs an order between a pin and
    /// the table.
    started: AtomicU64,
    ended: AtomicU64,
    failed: AtomicU64,
    /// It has been replaced: its requests ring when they end. Set and cleared by the operator.
    is_replaced: AtomicBool,
    /// It was rolled back from: nobody goes back to it who does not name it. Set and cleared by the operator.
    is_withdrawn: AtomicBool,
    /// A guard watches it: its failures ring.
    is_guarded: AtomicBool,
    bell: Arc<Bell>,
    past: Arc<Past>,
}

/// How many requests a revision has had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) ended: u64,
    pub(crate) failed: u64,
}

impl Revision {
    pub(crate) fn new(
        number: u32,
        module: Arc<LoadedModule>,
        source: String,
        config: &HandlerConfig,
        granted: &Arc<Granted>,
        bell: &Arc<Bell>,
        past: &Arc<Past>,
    ) -> Arc<Self> {
        Arc::new(Self {
            handler: Arc::clone(granted.handler()),
            number,
            module,
            source,
            since: now(),
            granted: Arc::clone(granted),
            limits: config.limits.clone(),
            counts_5xx: counts_5xx(config),
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            is_replaced: AtomicBool::new(false),
            is_withdrawn: AtomicBool::new(false),
            is_guarded: AtomicBool::new(false),
            bell: Arc::clone(bell),
            past: Arc::clone(past),
        })
    }

    pub(crate) fn sha256(&self) -> &str {
        &self.module.info().digest
    }

    /// Whether it was made with these settings.
    pub(crate) fn has_settings(&self, config: &HandlerConfig) -> bool {
        **self.granted == config.grants && self.limits == config.limits && self.counts_5xx == counts_5xx(config)
    }

    /// Starts a request on it.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        self.started.fetch_add(1, Ordering::SeqCst);
        Pin { revision: Arc::clone(self), ending: Ending::Well }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        // In this order: a request that ends in between must not make it less than nothing.
        let ended = self.ended.load(Ordering::SeqCst);
        self.started.load(Ordering::SeqCst) - ended
    }

    pub(crate) fn tally(&self) -> Tally {
        let failed = self.failed.load(Ordering::SeqCst);
        Tally { ended: self.ended.load(Ordering::SeqCst), failed }
    }

    /// A request of its handler was refused for want of room.
    pub(crate) fn refuse(&self) {
        self.past.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_replaced(&self, is_replaced: bool) {
        self.is_replaced.store(is_replaced, Ordering::SeqCst);
    }

    pub(crate) fn set_withdrawn(&self, is_withdrawn: bool) {
        self.is_withdrawn.store(is_withdrawn, Ordering::SeqCst);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::SeqCst)
    }

    pub(crate) fn set_guarded(&self, is_guarded: bool) {
        self.is_guarded.store(is_guarded, Ordering::SeqCst);
    }

    pub(crate) fn status(&self) -> RevisionStatus {
        let Tally { ended, failed } = self.tally();
        let in_flight = self.in_flight();
        RevisionStatus {
            number: self.number,
            sha256: self.sha256().to_owned(),
            source: self.source.clone(),
            since: self.since.clone(),
            in_flight,
            requests: ended + in_flight,
            failures: failed,
            withdrawn: self.is_withdrawn(),
        }
    }
}

fn counts_5xx(config: &HandlerConfig) -> bool {
    config.guard.as_ref().is_some_and(|guard| guard.count_5xx)
}

impl Drop for Revision {
    fn drop(&mut self) {
        let Tally { ended, failed } = self.tally();
        self.past.ended.fetch_add(ended, Ordering::SeqCst);
        self.past.failed.fetch_add(failed, Ordering::SeqCst);
    }
}

/// What a handler has had beside its revisions: what those had answered that are gone, and the requests that reached none.
#[derive(Default)]
pub(crate) struct Past {
    ended: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

impl Past {
    /// Requests that found the queue full, or waited there too long.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally { ended: self.ended.load(Ordering::SeqCst), failed: self.failed.load(Ordering::SeqCst) }
    }
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} r{}", self.handler, self.number)
    }
}

/// While it lives, a request runs on the revision.
pub(crate) struct Pin {
    revision: Arc<Revision>,
    ending: Ending,
}

enum Ending {
    Well,
    Failed,
    NeverBegun,
}

impl Pin {
    /// The request has failed, and the module or its settings are to blame.
    pub(crate) fn fail(&mut self) {
        self.ending = Ending::Failed;
    }

    /// There was no request after all.
    pub(crate) fn undo(mut self) {
        self.ending = Ending::NeverBegun;
    }
}

impl Deref for Pin {
    type Target = Arc<Revision>;

    fn deref(&self) -> &Arc<Revision> {
        &self.revision
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let revision = &self.revision;
        let failed = matches!(self.ending, Ending::Failed);
        if failed {
            revision.failed.fetch_add(1, Ordering::SeqCst);
        }
        match self.ending {
            Ending::NeverBegun => revision.started.fetch_sub(1, Ordering::SeqCst),
            Ending::Well | Ending::Failed => revision.ended.fetch_add(1, Ordering::SeqCst),
        };
        let rings = revision.is_replaced.load(Ordering::SeqCst) || failed && revision.is_guarded.load(Ordering::SeqCst);
        if rings {
            revision.bell.ring();
        }
    }
}

/// Wakes the one thread that looks after revisions.
#[derive(Default)]
pub(crate) struct Bell(OnceLock<Thread>);

impl Bell {
    /// The calling thread answers it from here on, by `park`.
    pub(crate) fn answer(&self) {
        // A second one would be a bug, and is not heard.
        let _ = self.0.set(std::thread::current());
    }

    pub(crate) fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}
