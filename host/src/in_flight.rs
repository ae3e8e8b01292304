//! The requests that run or wait in guests now: what `astra-host ps` lists, and what is cut when a drain is over.
//!
//! One request is one thread, so the list is one of threads: each worker has a place of its own, which it enters and leaves without
//! meeting another, and only who looks goes from place to place.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{Method, Uri};

use crate::{
    guest::{CutBy, Watch},
    receipt::milliseconds,
    request_id::RequestId,
    revision::Revision,
    status::RequestStatus,
};

/// One request, from its arrival at the host until its access line is written.
pub(crate) struct Ongoing {
    pub(crate) id: RequestId,
    pub(crate) handler: Arc<str>,
    /// The number of its revision; 0 if none was reached.
    pub(crate) revision: u32,
    /// How long it had waited to be started.
    pub(crate) queued: Duration,
    /// When it was given to its guest, or refused.
    pub(crate) started: Instant,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) watch: Arc<Watch>,
}

type Place = Mutex<Option<Arc<Ongoing>>>;

thread_local! {
    /// The places of this thread: one, but for threads of tests that serve several hosts.
    static PLACE: RefCell<Option<(Weak<InFlight>, Arc<Place>)>> = const { RefCell::new(None) };
}

/// All requests of one host that are in guests.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<Vec<Weak<Place>>>);

/// While it lives, the request is listed.
pub(crate) struct Listed(Arc<Place>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InFlight {
    /// Lists a request that the calling thread has begun.
    pub(crate) fn enter(self: &Arc<Self>, request: Arc<Ongoing>) -> Listed {
        let place = self.place();
        *lock(&place) = Some(request);
        Listed(place)
    }

    /// The calling thread's.
    fn place(self: &Arc<Self>) -> Arc<Place> {
        PLACE.with_borrow_mut(|mine| match mine {
            Some((host, place)) if host.as_ptr() == Arc::as_ptr(self) => Arc::clone(place),
            _ => {
                let place = Arc::<Place>::default();
                let mut places = lock(&self.0);
                if places.len() == places.capacity() {
                    // Threads that have ended.
                    places.retain(|place| place.strong_count() > 0);
                }
                places.push(Arc::downgrade(&place));
                *mine = Some((Arc::downgrade(self), Arc::clone(&place)));
                place
            }
        })
    }

    fn all(&self) -> Vec<Arc<Ongoing>> {
        let places: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        places.iter().filter_map(|place| lock(place).clone()).collect()
    }

    /// The oldest first.
    pub(crate) fn list(&self) -> Vec<RequestStatus> {
        let mut all = self.all();
        all.sort_by_key(|request| request.started);
        all.iter().map(|request| request.status()).collect()
    }

    /// Cuts the request with this id.
    pub(crate) fn kill(&self, id: &str) -> Option<RequestStatus> {
        let request = self.all().into_iter().find(|request| request.id.to_string() == id)?;
        let status = request.status();
        request.watch.cut(CutBy::Operator);
        Some(status)
    }

    /// Cuts what runs on a revision; how many were not cut before.
    pub(crate) fn cut(&self, revision: &Revision) -> u64 {
        let runs_there = |request: &&Arc<Ongoing>| {
            request.revision == revision.number && Arc::ptr_eq(&request.handler, &revision.handler)
        };
        self.all().iter().filter(runs_there).filter(|request| request.watch.cut(CutBy::Drain)).count() as u64
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.0).take();
    }
}

impl Ongoing {
    fn status(&self) -> RequestStatus {
        RequestStatus {
            id: self.id.to_string(),
            handler: self.handler.to_string(),
            revision: self.revision,
            age_ms: milliseconds(self.started.elapsed()),
            cpu_ms: self.watch.cpu().map(milliseconds),
            waits_for: self.watch.waits_for(),
            peer: self.peer.map(|peer| peer.to_string()),
            method: self.method.to_string(),
            path: self.uri.path().to_owned(),
        }
    }
}
