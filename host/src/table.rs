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
use astra_server::Lane;

use crate::{
    config::{Admission, Share},
    revision::{Pin, Revision},
    router::{Match, Router},
};

/// Routes and current revisions. Never changed: a swap makes a new one.
pub(crate) struct Table {
    router: Arc<Router>,
    /// By the router's index.
    entries: Vec<Entry>,
    /// There is one handler, and every request is for it.
    is_for_all: bool,
}

impl Table {
    /// `entries` by the index of `router`.
    pub(crate) fn new(router: Arc<Router>, entries: Vec<Entry>) -> Self {
        let is_for_all = entries.len() == 1 && router.is_for_all();
        Self { router, entries, is_for_all }
    }
}

/// Who serves one handler.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) main: Arc<Revision>,
    pub(crate) canary: Option<Arc<Canary>>,
    /// The handler's own, for as long as it is there.
    pub(crate) lane: u64,
    pub(crate) admission: Admission,
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

/// Most requests that there may be.
pub(crate) struct Most {
    /// Of all handlers together.
    pub(crate) in_flight: usize,
    /// Of one for which it is not set.
    pub(crate) queued: usize,
}

impl Most {
    /// The lane of a handler. One that is not alone leaves a quarter, of which each of the others keeps its part, even if many are slow.
    fn lane(&self, entry: &Entry, handlers: usize) -> Lane {
        let Admission { in_flight, queue, queue_timeout } = entry.admission;
        let unset = if handlers > 1 { self.in_flight - self.in_flight / 4 } else { self.in_flight };
        Lane {
            id: entry.lane,
            in_flight: in_flight.map_or(unset, |set| set as usize),
            kept: if handlers > 1 { (self.in_flight / 4 / handlers).max(1) } else { usize::MAX },
            queue: queue.map_or(self.queued, |set| set as usize),
            queue_timeout,
        }
    }
}

/// The table that is current.
pub(crate) struct Tables {
    table: ArcSwap<Table>,
    most: Most,
}

impl Tables {
    pub(crate) fn new(table: Table, most: Most) -> Self {
        Self { table: ArcSwap::from_pointee(table), most }
    }

    /// The bounds that a request shares with others of its handler. `None`: there is no route.
    pub(crate) fn lane(&self, host: Option<&str>, path: &str) -> Option<Lane> {
        let table = self.table.load();
        let index = if table.is_for_all { 0 } else { table.router.find(host, path)?.handler };
        table.entries.get(index).map(|entry| self.most.lane(entry, table.entries.len()))
    }

    /// The live revision of the handler that a request is for, which is not pinned.
    pub(crate) fn revision(&self, host: Option<&str>, path: &str) -> Option<Arc<Revision>> {
        let table = self.table.load();
        let found = table.router.find(host, path)?;
        Some(Arc::clone(&table.entries[found.handler].main))
    }

    /// Pins the revision for a request, after `tell` was told which route it came by. `None`: there is no route.
    pub(crate) fn pin(&self, host: Option<&str>, path: &str, mut tell: impl FnMut(&Match<'_>)) -> Option<Pin> {
        let mut decided = None;
        loop {
            let table = self.table.load();
            let found = table.router.find(host, path)?;
            let pin = table.entries[found.handler].choose(&mut decided).pin();
            fence(Ordering::SeqCst); // the pin before the look
            if std::ptr::eq(Arc::as_ptr(&table), Arc::as_ptr(&self.table.load())) {
                tell(&found);
                return Some(pin);
            }
            pin.undo();
        }
    }

    /// From here on requests see `table`, and the count of pins on what it replaces tells all there will be.
    pub(crate) fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
        fence(Ordering::SeqCst);
    }
}
