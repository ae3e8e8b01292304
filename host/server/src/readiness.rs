//! What the reactor last said about one socket. Readiness is edge-triggered: an edge comes once, so whoever is told
//! `WouldBlock` must have cleared the flag *before* the system call that said so; cleared after it, an edge that fell in
//! between would be lost and the connection would hang.

use std::io;

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

    /// Makes `call`, a system call, if the socket may be ready for it. `call` says whether there may be more for the next one before
    /// the next edge. None: it is not ready, and an edge will come.
    pub(crate) fn attempt<R>(&self, mut call: impl FnMut() -> io::Result<(R, bool)>) -> Option<io::Result<R>> {
        while self.claim() {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => self.set(),
                result => {
                    if !matches!(result, Ok((_, false))) {
                        self.set();
                    }
                    return Some(result.map(|(result, _)| result));
                }
            }
        }
        None
    }

    /// True: try the system call. The flag is cleared; `set` it again unless the call said `WouldBlock`.
    #[must_use]
    pub(crate) fn claim(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}
