//! The synchronisation primitives of the scheduler, named once. `run_state.rs`, `parker.rs`, `readiness.rs` and `seats.rs` use
//! nothing else, so that the model tests (`tests/models`) compile the very same files against loom's.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};
pub(crate) use std::thread::{Thread, current, park, park_timeout};

use std::sync::PoisonError;

/// Locks, whether or not somebody panicked while holding the lock: handlers run outside of every lock of ours, so what a lock
/// protects is whole even then.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
