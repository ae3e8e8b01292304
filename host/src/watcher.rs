//! Swaps in what has changed on disk, modules and certificates, on a thread of its own, which sleeps unless something is watched.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    certificates::Certificates,
    guest::LoadError,
    operator::{Attendant, Operator},
    operator_error::{OperatorError, Refusal},
    watch::{Change, Watched},
};

/// The thread.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn watcher(operator: &Operator, mut certificates: Certificates) -> io::Result<Attendant> {
    let mut watches = Watches::default();
    let look = move |operator: &Operator| {
        let pauses = [watches.look(operator), certificates.look(Instant::now())];
        pauses.into_iter().flatten().min()
    };
    Attendant::start("astra-watcher", operator, Operator::watch_bell, look, |_| ())
}

/// What is watched, by handler.
#[derive(Default)]
struct Watches(BTreeMap<Arc<str>, WatchedHandler>);

struct WatchedHandler {
    path: PathBuf,
    watched: Watched,
    /// It has changed and could not be swapped in yet.
    is_due: bool,
    /// Why not was said.
    is_told: bool,
}

impl Watches {
    /// Swaps in what has changed. When to look again, if anything is watched.
    fn look(&mut self, operator: &Operator) -> Option<Duration> {
        let wanted = operator.watched();
        self.0.retain(|name, watch| wanted.iter().any(|(known, path)| known == name && *path == watch.path));
        for (name, path) in wanted {
            self.0.entry(name).or_insert_with(|| {
                // It may have changed since it was loaded.
                WatchedHandler { watched: Watched::new(&path), path, is_due: true, is_told: false }
            });
        }
        for (name, watch) in &mut self.0 {
            if watch.watched.poll(Instant::now()) == Change::Stable {
                watch.watched.taken();
                (watch.is_due, watch.is_told) = (true, false);
            }
            if watch.is_due {
                watch.swap(name, operator);
            }
        }
        self.0.values().map(|watch| watch.watched.interval()).min()
    }
}

impl WatchedHandler {
    fn swap(&mut self, name: &str, operator: &Operator) {
        let swapped = operator.swap_changed(name, || self.watched.age());
        self.is_due = false;
        let Err(error) = swapped else { return };
        match &error {
            // Somebody is still writing it, perhaps.
            OperatorError::Load(error) if may_be_part(error) && self.watched.waiting_for_more() => return,
            // Another swap is under way, and will be done; a canary is there, and will be gone.
            _ if error.refusal() == Refusal::Conflict => self.is_due = true,
            _ if error.refusal() == Refusal::Stopping => return,
            _ => {}
        }
        if !self.is_told && !matches!(error, OperatorError::Busy { .. }) {
            operator.tell_failed(name, &error);
            self.is_told = true;
        }
    }
}

/// Whether a file that cannot be served may become one that can, when more of it is there.
fn may_be_part(error: &LoadError) -> bool {
    matches!(
        error,
        LoadError::Read { .. }
            | LoadError::NotWasm { .. }
            | LoadError::Truncated { .. }
            | LoadError::Malformed { .. }
            | LoadError::NoHandler { .. }
            | LoadError::Compile { .. }
    )
}
