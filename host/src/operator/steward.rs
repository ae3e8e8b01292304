//! Looks after revisions, on a thread of its own: ends drains, frees what nobody needs, asks the guards. Swaps and the last requests of
//! replaced revisions ring.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Attendant, Change, Operator, chain};
use crate::{events::Urgency, guard::Verdict, operator_error::OperatorError, revision::Revision};

/// How soon a guard is asked again whose revision could not be taken back at once.
const AGAIN: Duration = Duration::from_millis(100);

/// The thread. When it has ended nobody looks after anything any more, which all who wait are told.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn steward(operator: &Operator) -> io::Result<Attendant> {
    Attendant::start("astra-steward", operator, |operator| &operator.0.bell, Operator::look_after, Operator::end)
}

impl Operator {
    /// Does what is due: drains, frees, guards. How soon to look again, if nobody rings.
    fn look_after(&self) -> Option<Duration> {
        let inner = &*self.0;
        // An upgrade may have it for minutes, in which everything else goes on.
        let change = inner.try_change();
        let (mut complete, mut failed) = (Vec::new(), Vec::new());
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next: Instant| next.min(at)));
        {
            let mut book = inner.lock();
            let book = &mut *book;
            let mut going_on = Vec::new();
            for mut farewell in std::mem::take(&mut book.farewells) {
                match farewell.look_after(&inner.in_flight) {
                    Ok(receipt) => complete.push((receipt, farewell)),
                    Err(at) => {
                        sooner(at);
                        going_on.push(farewell);
                    }
                }
            }
            book.farewells = going_on;
            for (receipt, _) in &complete {
                if let Some(text) = receipt.farewell() {
                    let (handler, told) = (Some(receipt.handler.as_str()), Some(receipt.clone()));
                    inner.events.tell(Urgency::Normal, "drained", handler, text, told);
                }
                book.complete(receipt);
            }
            for handler in &mut book.handlers {
                if let Some(config) = &handler.config.guard {
                    sooner(handler.history.sample(&handler.main, config));
                }
                for guard in std::mem::take(&mut handler.guards) {
                    match guard.judge() {
                        Verdict::Waits => {
                            sooner(guard.until);
                            handler.guards.push(guard);
                        }
                        Verdict::Failed(_) if change.is_none() => {
                            sooner(Instant::now() + AGAIN);
                            handler.guards.push(guard);
                        }
                        Verdict::Failed(text) => {
                            failed.push((Arc::clone(&handler.name), Arc::clone(&guard.revision), text));
                        }
                        Verdict::Passed(text) => {
                            let (name, text) = (Some(&*handler.name), format!("passed: {text}"));
                            inner.events.tell(Urgency::Normal, "guard", name, text, None);
                        }
                    }
                }
            }
        }
        if let Some(change) = change {
            for (name, revision, text) in failed {
                self.take_back(&change, &name, &revision, text);
            }
        }
        complete.into_iter().for_each(|(_, farewell)| farewell.end());
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Takes a revision back of which a guard says `why`.
    fn take_back(&self, change: &Change<'_>, name: &str, revision: &Arc<Revision>, why: String) {
        let tell = |urgency, text| self.0.events.tell(urgency, "guard", Some(name), text, None);
        let is_canary = self.0.lock().handler(name).is_ok_and(|handler| !Arc::ptr_eq(&handler.main, revision));
        let (what, done) = if is_canary {
            ("the canary is aborted", self.try_abort(change, name, Some(revision)))
        } else {
            // A canary is compared with what is being taken back: it goes first. That there may be none is no failure.
            let _ = self.try_abort(change, name, None);
            ("rolled back", self.try_rollback(change, name, None, Some(revision)))
        };
        match done {
            Ok(receipt) => tell(Urgency::Loud, format!("{why}: {what}, r{} serves", receipt.to)),
            // Somebody was quicker: the revision serves no more.
            Err(OperatorError::Overtaken { .. }) => tell(Urgency::Normal, why),
            Err(error) => tell(Urgency::Loud, format!("{why}, but it cannot be taken back: {}", chain(&error))),
        }
        self.collect();
    }
}
