//! The thread that looks after revisions: it ends drains, frees what nobody needs, asks the guards. Asleep unless there is something
//! to do; swaps and the last requests of replaced revisions ring.

use std::{
    io,
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::operator::Operator;

/// The thread, joined when it is dropped.
pub(crate) struct Steward {
    operator: Operator,
    thread: Option<JoinHandle<()>>,
}

impl Steward {
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(operator: &Operator) -> io::Result<Self> {
        let theirs = operator.clone();
        let look_after = move || {
            theirs.bell().answer();
            while !theirs.is_stopping() {
                match theirs.look_after() {
                    Some(next) => thread::park_timeout(next.saturating_duration_since(Instant::now())),
                    None => thread::park(),
                }
            }
        };
        let thread = thread::Builder::new().name("astra-steward".to_owned()).spawn(look_after)?;
        Ok(Self { operator: operator.clone(), thread: Some(thread) })
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        self.operator.begin_stop();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
        self.operator.end();
    }
}
