//! A handler as the operator sees it: its configuration, which revision is live, which are kept, and what happened last.
//!
//! Lives behind the operator's lock; requests never come here, they read the [`Table`](crate::table::Table) that is made of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    config::{HandlerConfig, Share},
    farewell::Farewell,
    guard::{History, Watchman},
    guest::{Granted, LoadedModule},
    operator_error::OperatorError,
    receipt::Receipt,
    revision::{Bell, Past, Revision},
    status::{CanaryStatus, HandlerStatus, RevisionStatus},
    table::{Canary, Entry},
};

/// Revisions of one handler that may drain at a time: each holds its machine code.
const MAX_DRAINING: usize = 16;

/// One handler's state.
pub(crate) struct Handler {
    pub(crate) config: HandlerConfig,
    pub(crate) name: Arc<str>,
    pub(crate) main: Arc<Revision>,
    pub(crate) canary: Option<Arc<Canary>>,
    /// Replaced revisions, the newest last.
    kept: VecDeque<Arc<Revision>>,
    /// Of the last revision that was made.
    last_number: u32,
    past: Arc<Past>,
    pub(crate) history: History,
    /// At most one for the live revision and one for the canary.
    pub(crate) guards: Vec<Watchman>,
    /// Somebody is loading a module for it.
    pub(crate) is_busy: bool,
    /// The digest of that module, once it is known.
    pub(crate) expected: Option<String>,
    /// The digest that the configured module had when it was last looked at.
    pub(crate) configured: String,
    pub(crate) last: Option<Receipt>,
    bell: Arc<Bell>,
    /// Where its requests queue; another's, of the same name, is another.
    pub(crate) lane: u64,
}

/// Lanes so far; 0 is that of requests without a handler. Relaxed: nothing else is published with the number.
static LANES: AtomicU64 = AtomicU64::new(1);

impl Handler {
    /// A handler with its first revision; `configured` is the digest of the module that the configuration names.
    pub(crate) fn new(
        config: HandlerConfig,
        module: Arc<LoadedModule>,
        source: String,
        configured: String,
        bell: &Arc<Bell>,
    ) -> Self {
        let name: Arc<str> = config.name.as_str().into();
        let past = Arc::default();
        let granted = Arc::new(Granted::new(&name, config.grants.clone(), module.executor()));
        let main = Revision::new(1, module, source, &config, &granted, bell, &past);
        Self {
            history: History::from_now(&main),
            config,
            name,
            main,
            canary: None,
            kept: VecDeque::new(),
            last_number: 1,
            past,
            guards: Vec::new(),
            is_busy: false,
            expected: None,
            configured,
            last: None,
            bell: Arc::clone(bell),
            lane: LANES.fetch_add(1, Ordering::Relaxed),
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        let (main, canary) = (Arc::clone(&self.main), self.canary.clone());
        Entry { main, canary, lane: self.lane, admission: self.config.admission.clone() }
    }

    /// The digests of the modules that are live, have a share, are kept or are being loaded.
    pub(crate) fn digests(&self) -> impl Iterator<Item = &str> {
        let canary = self.canary.as_ref().map(|canary| &canary.revision);
        let revisions = [&self.main].into_iter().chain(canary).chain(&self.kept);
        revisions.map(|revision| revision.sha256()).chain(self.expected.as_deref())
    }

    /// A copy of the module with this digest is about to be made, which nobody may remove.
    pub(crate) fn expects(&mut self, sha256: &str) {
        self.expected = Some(sha256.to_owned());
    }

    /// The module with this digest, if it is loaded.
    pub(crate) fn loaded(&self, sha256: &str) -> Option<Arc<LoadedModule>> {
        let revisions = [&self.main].into_iter().chain(&self.kept);
        revisions.map(|revision| &revision.module).find(|module| module.info().digest == sha256).cloned()
    }

    /// A new revision with the settings of the configuration; not live yet.
    pub(crate) fn make(&mut self, module: Arc<LoadedModule>, source: String) -> Arc<Revision> {
        self.last_number += 1;
        let granted = match &self.main.granted {
            unchanged if ***unchanged == self.config.grants => Arc::clone(unchanged),
            _ => Arc::new(Granted::new(&self.name, self.config.grants.clone(), module.executor())),
        };
        Revision::new(self.last_number, module, source, &self.config, &granted, &self.bell, &self.past)
    }

    /// Makes `revision` the live one, as the receipt says; the table has to follow. Returns the one before, which is kept for rollback, and
    /// those that are therefore kept no longer (the one before too, if none is kept).
    pub(crate) fn put(&mut self, revision: Arc<Revision>, receipt: &Receipt) -> (Arc<Revision>, Vec<Arc<Revision>>) {
        self.guards.clear();
        revision.set_replaced(false);
        revision.set_withdrawn(false);
        self.kept.retain(|kept| !Arc::ptr_eq(kept, &revision));
        let before = std::mem::replace(&mut self.main, revision);
        before.set_replaced(true);
        if let Some(config) = &self.config.guard {
            self.guards.push(Watchman::after(&self.main, &before, &self.history, config));
        }
        self.history = History::from_now(&self.main);
        self.last = Some(receipt.clone());
        self.kept.push_back(Arc::clone(&before));
        let kept_no_longer = self.trim();
        (before, kept_no_longer)
    }

    /// Gives a revision a share of the requests; the table has to follow.
    pub(crate) fn put_canary(&mut self, revision: Arc<Revision>, share: Share) {
        self.guards.extend(self.config.guard.as_ref().map(|config| Watchman::beside(&revision, &self.main, config)));
        self.canary = Some(Canary::new(revision, share));
    }

    /// # Errors
    /// There is no canary.
    pub(crate) fn canary(&self) -> Result<Arc<Revision>, OperatorError> {
        let canary = self.canary.as_ref().ok_or_else(|| OperatorError::NoCanary { name: self.name.to_string() })?;
        Ok(Arc::clone(&canary.revision))
    }

    /// # Errors
    /// There is no canary.
    pub(crate) fn take_canary(&mut self) -> Result<Arc<Revision>, OperatorError> {
        let canary = self.canary()?;
        self.canary = None;
        self.guards.retain(|guard| !Arc::ptr_eq(&guard.revision, &canary));
        Ok(canary)
    }

    /// Those that are kept beyond what the configuration says are kept no longer.
    pub(crate) fn trim(&mut self) -> Vec<Arc<Revision>> {
        let surplus = self.kept.len().saturating_sub(self.config.keep);
        self.kept.drain(..surplus).collect()
    }

    /// All that were kept, when the handler is removed.
    pub(crate) fn keep_none(&mut self) -> Vec<Arc<Revision>> {
        self.kept.drain(..).collect()
    }

    /// The revision to go back to: number `to`, or the one that was replaced last and was not rolled back from.
    ///
    /// # Errors
    /// It is not kept.
    pub(crate) fn earlier(&self, to: Option<u32>) -> Result<Arc<Revision>, OperatorError> {
        let name = || self.name.to_string();
        let found = match to {
            Some(number) => self.kept.iter().find(|kept| kept.number == number),
            None => self.kept.iter().rev().find(|kept| !kept.is_withdrawn()),
        };
        found.cloned().ok_or_else(|| {
            let kept: Vec<_> = self.kept.iter().map(|kept| format!("r{}", kept.number)).collect();
            let kept = kept.join(", ");
            match to {
                _ if self.kept.is_empty() => OperatorError::NothingToRollBackTo { name: name() },
                Some(number) => OperatorError::NotKept { name: name(), number, kept },
                None => OperatorError::AllWithdrawn { name: name(), kept },
            }
        })
    }

    /// # Errors
    /// It is not the time for a new revision.
    pub(crate) fn check_ready(&self, farewells: &[Farewell]) -> Result<(), OperatorError> {
        let draining = self.draining(farewells).count();
        if draining >= MAX_DRAINING {
            return Err(OperatorError::Draining { name: self.name.to_string(), count: draining });
        }
        self.check_no_canary()
    }

    /// # Errors
    /// There is a canary.
    pub(crate) fn check_no_canary(&self) -> Result<(), OperatorError> {
        let has_canary = |canary: &Arc<Canary>| OperatorError::HasCanary {
            name: self.name.to_string(),
            canary: canary.revision.number,
        };
        self.canary.as_ref().map_or(Ok(()), |canary| Err(has_canary(canary)))
    }

    /// What is on trial, and how long it is.
    pub(crate) fn trial(&self) -> Option<String> {
        let canary = self.canary.as_ref().map(|canary| format!("has a canary, r{}", canary.revision.number));
        let trial =
            canary.or_else(|| self.guards.first().map(|guard| format!("has a guard that {}", guard.status())))?;
        Some(format!("handler `{}` {trial}", self.name))
    }

    fn draining<'a>(&'a self, farewells: &'a [Farewell]) -> impl Iterator<Item = &'a Arc<Revision>> {
        let draining = farewells.iter().filter_map(Farewell::draining);
        draining.filter(|revision| Arc::ptr_eq(&revision.handler, &self.name))
    }

    /// `queued` is how many of its requests are in the server's queue.
    pub(crate) fn status(&self, farewells: &[Farewell], differs: Option<String>, queued: u64) -> HandlerStatus {
        let revision = self.main.status();
        let canary = self
            .canary
            .as_ref()
            .map(|canary| CanaryStatus { share: canary.share.to_string(), revision: canary.revision.status() });
        let kept: Vec<RevisionStatus> = self.kept.iter().rev().map(|kept| kept.status()).collect();
        let draining: Vec<RevisionStatus> = self.draining(farewells).map(|revision| revision.status()).collect();
        let sum = |of: fn(&RevisionStatus) -> u64| {
            let beside = canary.as_ref().map(|canary| &canary.revision);
            [&revision].into_iter().chain(beside).chain(&kept).chain(&draining).map(of).sum::<u64>()
        };
        let past = self.past.tally();
        HandlerStatus {
            name: self.name.to_string(),
            routes: self.config.routes.iter().map(ToString::to_string).collect(),
            in_flight: sum(|revision| revision.in_flight),
            requests: sum(|revision| revision.requests) + past.ended,
            failures: sum(|revision| revision.failures) + past.failed,
            queued,
            refused: self.past.refused(),
            revision,
            canary,
            kept,
            draining,
            differs,
            guard: (!self.guards.is_empty())
                .then(|| self.guards.iter().map(Watchman::status).collect::<Vec<_>>().join(", ")),
            last: self.last.clone(),
        }
    }
}
