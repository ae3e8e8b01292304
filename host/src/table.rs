//! What every request reads: the routes, and which revision serves each handler. One pointer, exchanged whole.
//!
//! A request pins its revision and then looks whether the table is still the same: a swap publishes first and counts pins second,
//! so either the request sees the new table or the swap sees the request. Without that a revision could be called drained and
//! get a request afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering, fence},
};

use arc_swap::ArcSwap;

use crate::{
    config::Share,
    revision::{Pin, Revision},
    router::{Match, Router},
};

/// Routes and current revisions. Never changed: a swap makes a new one.
pub(crate) struct Table {
    pub(crate) router: Arc<Router>,
    /// By the router's index.
    pub(crate) entries: Vec<Entry>,
}

/// Who serves one handler.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) main: Arc<Revision>,
    pub(crate) canary: Option<Arc<Canary>>,
}

/// A revision that gets a share of the requests.
pub(crate) struct Canary {
    pub(crate) revision: Arc<Revision>,
    pub(crate) share: Share,
    /// Requests that were decided upon.
    requests: AtomicU64,
}

impl Canary {
    pub(crate) fn new(revision: Arc<Revision>, share: Share) -> Arc<Self> {
        Arc::new(Self { revision, share, requests: AtomicU64::new(0) })
    }
}

impl Entry {
    /// The revision for a request. What was decided for it is kept, should it have to choose again.
    fn choose(&self, decided: &mut Option<(Arc<Canary>, bool)>) -> &Arc<Revision> {
        let Some(canary) = &self.canary else { return &self.main };
        let takes = match decided {
            Some((before, takes)) if Arc::ptr_eq(before, canary) => *takes,
            // Nothing else depends on the count.
            _ => canary.share.takes(canary.requests.fetch_add(1, Ordering::Relaxed)),
        };
        *decided = Some((Arc::clone(canary), takes));
        if takes { &canary.revision } else { &self.main }
    }
}

/// The table that is current.
pub(crate) struct Tables(ArcSwap<Table>);

impl Tables {
    pub(crate) fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// Pins the revision for a request, after `tell` was told which route it came by. `None`: there is no route.
    pub(crate) fn pin(&self, host: Option<&str>, path: &str, mut tell: impl FnMut(&Match<'_>)) -> Option<Pin> {
        let mut decided = None;
        loop {
            let table = self.0.load();
            let found = table.router.find(host, path)?;
            let pin = table.entries[found.handler].choose(&mut decided).pin();
            fence(Ordering::SeqCst); // the pin before the look
            if std::ptr::eq(Arc::as_ptr(&table), Arc::as_ptr(&self.0.load())) {
                tell(&found);
                return Some(pin);
            }
            pin.undo();
        }
    }

    /// From here on requests see `table`, and the count of pins on what it replaces tells all there will be.
    pub(crate) fn publish(&self, table: Table) {
        self.0.store(Arc::new(table));
        fence(Ordering::SeqCst);
    }
}
