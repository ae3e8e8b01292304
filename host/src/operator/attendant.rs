//! A thread that sees to something for the operator: asleep until it is time to look, or until its bell rings. Joined when it is dropped.

use std::{
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Operator;
use crate::revision::Bell;

/// The thread; dropping it stops the operator, too.
pub(crate) struct Attendant {
    operator: Operator,
    thread: Option<JoinHandle<()>>,
    at_end: fn(&Operator),
}

impl Attendant {
    /// Calls `look`, which says when to look again if nobody rings `bell`, until the operator stops; `at_end` when the thread has ended.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(
        name: &str,
        operator: &Operator,
        bell: fn(&Operator) -> &Bell,
        mut look: impl FnMut(&Operator) -> Option<Duration> + Send + 'static,
        at_end: fn(&Operator),
    ) -> io::Result<Self> {
        let theirs = operator.clone();
        let attend = move || {
            bell(&theirs).answer();
            while !theirs.is_stopping() {
                match look(&theirs) {
                    Some(pause) => thread::park_timeout(pause),
                    None => thread::park(),
                }
            }
        };
        // Modules may be loaded on it, which runs guests' start functions.
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(operator.worker_stack());
        Ok(Self { operator: operator.clone(), thread: Some(thread.spawn(attend)?), at_end })
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        self.operator.begin_stop();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
        (self.at_end)(&self.operator);
    }
}
