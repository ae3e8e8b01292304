//! Model checks: `run_state.rs`, `readiness.rs`, `parker.rs`, `lanes.rs` and `seats.rs` of astra-server, the very same files, on loom's
//! primitives instead of the standard library's. loom runs each model under every interleaving (within a bound on
//! preemptions) and fails if one panics, or if all its threads are asleep: that is what a lost wake-up looks like.
//!
//! Rules 1, 2, 4 and 9 of the scheduler, and parking against the last push, are what is modelled here; `order_model.rs` holds
//! plain tests of rules 5 and 11; the others have tests against real sockets in `host/server/tests`.

#![cfg(test)]
#![allow(dead_code, unreachable_pub, reason = "the models use a part of the files that they share with the server")]

/// What `host/server/src/sync.rs` names, from loom.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread::{Thread, current, park};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// No model parks with a time limit.
    pub(crate) fn park_timeout(_: std::time::Duration) {
        loom::thread::yield_now();
    }
}

#[path = "../../../host/server/src/lanes.rs"]
mod lanes;
#[path = "../../../host/server/src/parker.rs"]
mod parker;
#[path = "../../../host/server/src/readiness.rs"]
mod readiness;
#[path = "../../../host/server/src/run_state.rs"]
mod run_state;
#[path = "../../../host/server/src/seats.rs"]
mod seats;

mod connection_model;
mod order_model;
mod workers_model;

/// Explores `model` with at most two preemptions, which is where bugs of this kind show.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(model);
}
