//! How a handler waits: its worker gives up the seat, sends what the handler has written so far, and parks.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::parker::Parker;
use crate::slot::Slot;
use crate::sync::lock;
use crate::timer::{Millis, Sleep};
use crate::workers::{Worker, Workers, current_slot, current_worker};

/// Why a wait ended before what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupted {
    /// The time given to [`wait`] has passed.
    Deadline,
    /// The client has reset or closed its connection or stream: nobody will read an answer.
    ClientGone,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the deadline has passed",
            Self::ClientGone => "the client is gone",
        })
    }
}

impl std::error::Error for Interrupted {}

impl From<Interrupted> for io::Error {
    fn from(interrupted: Interrupted) -> Self {
        let kind = match interrupted {
            Interrupted::Deadline => io::ErrorKind::TimedOut,
            Interrupted::ClientGone => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, interrupted)
    }
}

/// Waits for `future` on this thread: polls it; if it is not ready, sends what the request has written so far, gives up the
/// seat and parks until the future is ready, `until` has passed or the client is gone; then takes a seat again.
///
/// Works on any thread; anywhere but in a handler it just parks, and the client cannot be gone.
///
/// # Errors
///
/// [`Interrupted`], and the future is dropped.
pub fn wait<F: Future>(future: F, until: Option<Instant>) -> Result<F::Output, Interrupted> {
    wait_for(pin!(future), until, true)
}

/// As [`wait`], for a handler that goes on when its client is gone.
///
/// # Errors
///
/// [`Interrupted::Deadline`], and the future is dropped.
pub fn wait_alone<F: Future>(future: F, until: Option<Instant>) -> Result<F::Output, Interrupted> {
    wait_for(pin!(future), until, false)
}

fn wait_for<F: Future>(
    mut future: Pin<&mut F>,
    until: Option<Instant>,
    needs_client: bool,
) -> Result<F::Output, Interrupted> {
    let (Some((workers, worker)), Some(slot)) = (current_worker(), current_slot()) else {
        return wait_here(future, until, None);
    };
    if slot.blocks.load(Ordering::Relaxed) {
        return wait_here(future, until, needs_client.then_some(&*slot));
    }
    loop {
        worker.member.take_woken();
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&worker.waker)) {
            return Ok(output);
        }
        workers.poll_own(&slot);
        if needs_client && slot.is_gone() {
            return Err(Interrupted::ClientGone);
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(Interrupted::Deadline);
        }
        if !worker.member.is_woken() {
            Left::new(&workers, &worker, true).until_woken(until);
        }
    }
}

/// Waits without giving up a seat: there is none, on a thread that is no worker or inside of [`blocking`].
fn wait_here<F: Future>(
    mut future: Pin<&mut F>,
    until: Option<Instant>,
    slot: Option<&Slot>,
) -> Result<F::Output, Interrupted> {
    let parker = Arc::new(Parker::new());
    let waker = Waker::from(parker.clone());
    let outer = slot.and_then(|slot| slot.set_waiter(waker.clone()));
    let result = loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            break Ok(output);
        }
        if slot.is_some_and(Slot::is_gone) {
            break Err(Interrupted::ClientGone);
        }
        if !parker.park_until(until) {
            break Err(Interrupted::Deadline);
        }
    };
    if let (Some(slot), Some(outer)) = (slot, outer) {
        slot.set_waiter(outer);
    }
    result
}

/// A future for [`wait`] that is ready at `at`, up to two milliseconds late, by the timers of the server whose worker calls
/// this. `None` on any other thread.
pub fn sleep_until(at: Instant) -> Option<impl Future<Output = ()> + Send + 'static> {
    let (workers, _) = current_worker()?;
    Some(Sleep::until(Arc::downgrade(&workers), at))
}

/// Announces a wait of another kind (a lock, a file, another server): the seat is given up while `f` runs, so that other
/// requests keep moving. Without the announcement they do too, a few milliseconds later. Anywhere but in a handler this just
/// calls `f`.
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    let (Some((workers, worker)), Some(slot)) = (current_worker(), current_slot()) else { return f() };
    workers.poll_own(&slot);
    // What `f` does to its own connection goes to the run queue: this thread will not poll it before `f` returns.
    let _blocks = Blocks { slot: &slot, nested: slot.blocks.swap(true, Ordering::Relaxed) };
    let _left = Left::new(&workers, &worker, false);
    f()
}

/// How long a handler that computes may keep others from its seat, in milliseconds.
const SLICE: Millis = 5;

/// For a handler that computes for long, to be called every now and then, which costs a few nanoseconds: if it has held its seat for five
/// milliseconds and others want one, it queues for it. In a lane ([`Admission::Queue`](crate::Admission::Queue)) those that had to give way have
/// half of the time, and what is new or has waited the other half; beside sixteen times as many of them as there are seats, nothing new of that
/// lane is started. Anywhere but in a handler, and inside of [`blocking`], this does nothing.
pub fn give_way() {
    let (Some((workers, worker)), Some(slot)) = (current_worker(), current_slot()) else { return };
    if slot.blocks.load(Ordering::Relaxed) {
        return;
    }
    let held = match &mut lock(&worker.work).running {
        Some(running) if workers.reactor.timers.recent().saturating_sub(running.since) >= SLICE => {
            running.waits = true;
            running.held(&workers)
        }
        _ => return,
    };
    workers.send_held(&worker);
    match workers.seats.give_way(&worker.member, held) {
        Some(call) => {
            workers.act(call);
            worker.member.parker().park();
            lock(&worker.work).go_on(&workers);
        }
        None => lock(&worker.work).still_runs(),
    }
}

/// While it lives, the handler is in [`blocking`].
struct Blocks<'a> {
    slot: &'a Slot,
    nested: bool,
}

impl Drop for Blocks<'_> {
    fn drop(&mut self) {
        self.slot.blocks.store(self.nested, Ordering::Relaxed);
    }
}

/// Sends what the request on this thread has written so far, without waiting for anything. A handler that waits, or returns, need
/// not call it; one that computes for long may. Anywhere but in a handler this does nothing.
pub fn flush() {
    if let (Some((workers, _)), Some(slot)) = (current_worker(), current_slot()) {
        workers.poll_own(&slot);
    }
}

/// While it lives, the worker has no seat. In another one ([`blocking`] inside of [`blocking`]) it does nothing.
struct Left<'a> {
    workers: &'a Arc<Workers>,
    worker: &'a Arc<Worker>,
    is_nested: bool,
    is_seated: bool,
}

impl<'a> Left<'a> {
    /// `until_woken`: whoever wakes the worker asks for its seat.
    fn new(workers: &'a Arc<Workers>, worker: &'a Arc<Worker>, until_woken: bool) -> Self {
        let mut held = None;
        if let Some(running) = &mut lock(&worker.work).running {
            running.slot.watch_stall();
            if !std::mem::replace(&mut running.waits, true) {
                held = Some(running.held(workers));
            }
        }
        let is_nested = held.is_none();
        if let Some(held) = held {
            workers.send_held(worker);
            workers.act(workers.seats.leave(&worker.member, until_woken, held));
        }
        Self { workers, worker, is_nested, is_seated: false }
    }

    /// Parks until the worker was woken and has its seat, or `until`.
    fn until_woken(mut self, until: Option<Instant>) {
        // Whoever woke it before it had left could not ask for its seat.
        if !self.worker.member.is_woken() {
            self.is_seated = self.worker.member.parker().park_until(until);
        }
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.is_nested {
            return;
        }
        if !self.is_seated {
            self.workers.act(self.workers.seats.come_back(&self.worker.member));
            self.worker.member.parker().park();
        }
        // It may compute from here on.
        self.workers.wake_monitor();
        lock(&self.worker.work).go_on(self.workers);
    }
}
