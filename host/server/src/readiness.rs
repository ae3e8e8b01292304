//! What the reactor last said about one socket. Readiness is edge-triggered: an edge comes once, so whoever is told
//! `WouldBlock` must have cleared the flag *before* the system call that said so; cleared after it, an edge that fell in
//! between would be lost and the connection would hang.

use crate::sync::{AtomicBool, Ordering};

/// One direction of a socket. Set by the poller, cleared by the runner of the connection.
#[derive(Debug)]
pub(crate) struct Readiness(AtomicBool);

impl Readiness {
    pub(crate) fn new(ready: bool) -> Self {
        Self(AtomicBool::new(ready))
    }

    /// A read-modify-write, like `claim`: so the two are totally ordered, and each sees what came before the other.
    pub(crate) fn set(&self) {
        self.0.swap(true, Ordering::SeqCst);
    }

    /// True: try the system call. The flag is cleared; `set` it again unless the call said `WouldBlock`.
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}
