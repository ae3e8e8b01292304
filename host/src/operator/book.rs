//! Who serves what, and what is left to do after swaps. Behind one lock, which requests never take.

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use super::Inner;
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
}

impl Book {
    pub(super) fn new(handlers: Vec<Handler>, router: Arc<Router>) -> Self {
        Self { handlers, router, farewells: Vec::new(), is_stopping: false }
    }

    pub(super) fn table(&self) -> Table {
        Table { router: Arc::clone(&self.router), entries: self.handlers.iter().map(Handler::entry).collect() }
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

    /// A revision is not kept any more: it is freed now, or when the farewell that waits for its requests is over.
    fn evict(&mut self, farewell: &mut Farewell, revisions: Vec<Arc<Revision>>) {
        for revision in revisions {
            match self.farewells.iter_mut().find(|other| other.drains(&revision)) {
                Some(other) => other.part(&revision, false),
                None => farewell.evict(&revision),
            }
        }
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

    /// Claims a handler for a new revision.
    pub(super) fn claim(&self, name: &str) -> Result<Busy<'_>, OperatorError> {
        let mut book = self.lock();
        book.handler(name)?;
        let Book { handlers, farewells, .. } = &mut *book;
        if let Some(handler) = handlers.iter_mut().find(|handler| &*handler.name == name) {
            handler.check_free(farewells)?;
            handler.is_busy = true;
        }
        Ok(Busy { operator: self, name: name.to_owned() })
    }

    /// Makes a revision that has passed the gate the live one.
    pub(super) fn go_live(
        &self,
        book: &mut Book,
        name: &str,
        revision: &Arc<Revision>,
        receipt: Receipt,
    ) -> Result<Arc<Report>, OperatorError> {
        let handler = book.handler(name)?;
        let drain = handler.config.drain;
        let before = handler.put(Arc::clone(revision));
        handler.last = Some(receipt.clone());
        let evicted = handler.keep(Arc::clone(&before));
        for farewell in &mut book.farewells {
            farewell.part(revision, true);
        }
        self.tables.publish(book.table());
        Ok(self.bid_farewell(book, receipt, before, evicted, drain))
    }

    /// Tells what is live now.
    pub(super) fn announce(&self, receipt: &Receipt) {
        let (kind, handler) = (receipt.action.name(), Some(receipt.handler.as_str()));
        self.events.tell(Urgency::Normal, kind, handler, receipt.headline(), Some(receipt.clone()));
    }

    /// Announces a receipt, sees to it that a revision which the table does not have any more drains, and that those which are kept no longer are freed (it may
    /// be one of them).
    pub(super) fn bid_farewell(
        &self,
        book: &mut Book,
        receipt: Receipt,
        replaced: Arc<Revision>,
        evicted: Vec<Arc<Revision>>,
        drain: Duration,
    ) -> Arc<Report> {
        self.announce(&receipt); // before the steward can tell how it went on
        let is_kept = !evicted.iter().any(|evicted| Arc::ptr_eq(evicted, &replaced));
        let others = evicted.into_iter().filter(|evicted| !Arc::ptr_eq(evicted, &replaced)).collect();
        let mut farewell = Farewell::new(receipt, replaced, is_kept, drain);
        book.evict(&mut farewell, others);
        let report = farewell.report();
        book.farewells.push(farewell);
        self.bell.ring();
        report
    }
}
