//! Who serves what, and what is left to do after swaps. Behind one lock, which requests never take.

use std::{
    collections::VecDeque,
    sync::{Arc, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};

use super::{Change, Inner};
use crate::{
    events::Urgency,
    farewell::{Farewell, Report},
    handler::Handler,
    operator_error::OperatorError,
    receipt::Receipt,
    revision::Revision,
    router::Router,
    table::Table,
};

/// Who serves what, and what is left to do after swaps.
pub(super) struct Book {
    /// In the order of the configuration, which is that of the router's indexes.
    pub(super) handlers: Vec<Handler>,
    pub(super) router: Arc<Router>,
    pub(super) farewells: Vec<Farewell>,
    pub(super) is_stopping: bool,
    /// The last receipts that are complete.
    complete: VecDeque<Receipt>,
}

/// Complete receipts that are remembered, for who asks a little late.
const RECEIPTS: usize = 64;

impl Book {
    pub(super) fn new(handlers: Vec<Handler>, router: Arc<Router>) -> Self {
        Self { handlers, router, farewells: Vec::new(), is_stopping: false, complete: VecDeque::new() }
    }

    pub(super) fn table(&self) -> Table {
        Table::new(Arc::clone(&self.router), self.handlers.iter().map(Handler::entry).collect())
    }

    pub(super) fn handler(&mut self, name: &str) -> Result<&mut Handler, OperatorError> {
        if self.is_stopping {
            return Err(OperatorError::Stopping);
        }
        match self.handlers.iter().position(|handler| &*handler.name == name) {
            Some(index) => Ok(&mut self.handlers[index]),
            None => {
                let known: Vec<_> = self.handlers.iter().map(|handler| format!("`{}`", handler.name)).collect();
                Err(OperatorError::UnknownHandler { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// # Errors
    /// There is no such handler, or it is not the time for a new revision of it.
    pub(super) fn check_ready(&mut self, name: &str) -> Result<(), OperatorError> {
        self.handler(name)?;
        let handler = self.handlers.iter().find(|handler| &*handler.name == name);
        handler.map_or(Ok(()), |handler| handler.check_ready(&self.farewells))
    }

    /// Notes a complete receipt.
    pub(super) fn complete(&mut self, receipt: &Receipt) {
        let handler = self.handlers.iter_mut().find(|handler| *handler.name == *receipt.handler);
        if let Some(last) = handler.and_then(|handler| handler.last.as_mut())
            && last.is_same_as(receipt)
        {
            *last = receipt.clone();
        }
        if self.complete.len() == RECEIPTS {
            self.complete.pop_front();
        }
        self.complete.push_back(receipt.clone());
    }

    /// Notes whether a restart will serve what a receipt tells of, which is known a little later.
    pub(super) fn amend(&mut self, receipt: &Receipt) {
        let farewells = self.farewells.iter_mut().map(Farewell::receipt);
        let last = self.handlers.iter_mut().filter_map(|handler| handler.last.as_mut());
        for noted in farewells.chain(last).chain(&mut self.complete).filter(|noted| noted.is_same_as(receipt)) {
            noted.outlives_restart = receipt.outlives_restart;
        }
    }

    /// The complete receipt, or where to wait for it; neither if it is long past, or there was nothing to complete.
    pub(super) fn find(&self, receipt: &Receipt) -> Result<Receipt, Option<Arc<Report>>> {
        match self.complete.iter().find(|complete| complete.is_same_as(receipt)) {
            Some(complete) => Ok(complete.clone()),
            None => Err(self.farewells.iter().find(|farewell| farewell.is_of(receipt)).map(Farewell::report)),
        }
    }

    /// A revision is not kept any more: it is freed now, or when the farewell that waits for its requests is over.
    fn evict(&mut self, farewell: &mut Farewell, revisions: Vec<Arc<Revision>>) {
        for revision in revisions {
            if !self.let_go(&revision) {
                farewell.evict(&revision);
            }
        }
    }

    /// A revision is not kept any more. Whether a farewell waits for its requests, and will tell when it is freed.
    pub(super) fn let_go(&mut self, revision: &Revision) -> bool {
        let waiting = self.farewells.iter_mut().find(|farewell| farewell.drains(revision));
        waiting.map(|farewell| farewell.part(revision, false)).is_some()
    }
}

/// While it lives, a module is being loaded for the handler and no other may.
pub(super) struct Busy<'a> {
    operator: &'a Inner,
    name: String,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(handler) = self.operator.lock().handlers.iter_mut().find(|handler| *handler.name == *self.name) {
            (handler.is_busy, handler.expected) = (false, None);
        }
    }
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served, and what is recorded of it, changes at one place at a time, and not before this host has taken over. Taken before
    /// the book, never while it is held. Who has waited here may find that the host is stopping.
    pub(super) fn change(&self) -> Change<'_> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.may_change.wait_while(changes, |may| !*may).unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless somebody else is at it.
    pub(super) fn try_change(&self) -> Option<Change<'_>> {
        match self.changes.try_lock() {
            Ok(change) => Some(change),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Nobody who waits to change something waits for this host to take over any more.
    pub(super) fn let_change(&self, mut change: Change<'_>) {
        *change = true;
        self.may_change.notify_all();
    }

    /// Claims a handler for a new revision: no other is loaded for it meanwhile.
    pub(super) fn claim(&self, name: &str) -> Result<Busy<'_>, OperatorError> {
        let mut book = self.lock();
        let handler = book.handler(name)?;
        if handler.is_busy {
            return Err(OperatorError::Busy { name: name.to_owned() });
        }
        handler.is_busy = true;
        Ok(Busy { operator: self, name: name.to_owned() })
    }

    /// Makes a revision that has passed the gate the live one.
    pub(super) fn go_live(
        &self,
        book: &mut Book,
        name: &str,
        revision: &Arc<Revision>,
        receipt: Receipt,
    ) -> Result<(), OperatorError> {
        let handler = book.handler(name)?;
        let drain = handler.config.drain;
        let (before, evicted) = handler.put(Arc::clone(revision), &receipt);
        for farewell in &mut book.farewells {
            farewell.part(revision, true);
        }
        self.tables.publish(book.table());
        self.bid_farewell(book, receipt, before, evicted, drain);
        Ok(())
    }

    /// Tells what is live now.
    pub(super) fn announce(&self, receipt: &Receipt) {
        let (kind, handler) = (receipt.action.name(), Some(receipt.handler.as_str()));
        self.events.tell(Urgency::Normal, kind, handler, receipt.headline(), Some(receipt.clone()));
    }

    /// Announces a receipt, and sees to it that the revision which was replaced drains, and that those which are kept no longer (it may be
    /// one of them) are freed.
    pub(super) fn bid_farewell(
        &self,
        book: &mut Book,
        receipt: Receipt,
        replaced: Arc<Revision>,
        evicted: Vec<Arc<Revision>>,
        drain: Duration,
    ) {
        self.announce(&receipt); // before the steward can tell how it went on
        let is_kept = !evicted.iter().any(|evicted| Arc::ptr_eq(evicted, &replaced));
        let others = evicted.into_iter().filter(|evicted| !Arc::ptr_eq(evicted, &replaced)).collect();
        let mut farewell = Farewell::new(receipt, replaced, is_kept, drain);
        book.evict(&mut farewell, others);
        book.farewells.push(farewell);
        self.bell.ring();
    }
}
