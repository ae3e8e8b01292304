//! Guests of WASI 0.3, which have tasks of their own: where their event loop runs, and where it waits.
//!
//! The loop runs on the worker of the request and stops whenever all of the guest's tasks wait for the host; then the worker parks as in
//! `blocking.rs`, under the same deadlines. What such a guest waits for is inside of the loop, so the worker looks at the answer there:
//! it asks for that by polling a second time before it parks. Nothing but the loop has the store meanwhile.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use wasmtime::{AsContextMut as _, Result, Store, component::Accessor};

use super::{
    instance::State,
    limits::{Cut, Phase},
};

/// Makes a guest's instance, which rarely waits for anything.
///
/// # Errors
/// It cannot be made, or the deadline has passed or the client is gone meanwhile.
pub(crate) fn instantiate<T>(
    store: &mut Store<State>,
    make: impl AsyncFnOnce(&mut Store<State>) -> Result<T>,
) -> Result<T> {
    let until = store.data_mut().clock.until(Phase::Head);
    wait(make(store), until)?
}

fn wait<F: Future>(future: F, until: Option<(Instant, Cut)>) -> Result<F::Output, Cut> {
    astra_server::wait(future, until.map(|(at, _)| at)).map_err(|interrupted| match interrupted {
        astra_server::Interrupted::ClientGone => Cut::ClientGone,
        _ => until.map_or(Cut::Deadline, |(_, cut)| cut),
    })
}

/// Runs `call` in the event loop of a guest, on the calling worker, until it has ended.
///
/// # Errors
/// The guest trapped, the deadline has passed, the request was cut, or the client is gone.
pub(crate) fn run<R>(store: &mut Store<State>, call: impl AsyncFnOnce(&Accessor<State>) -> Result<R>) -> Result<R> {
    let watch = Arc::clone(store.data().clock.watch());
    let rest = Rest { until: Cell::new(store.data_mut().clock.until(Phase::Head)), ..Rest::default() };
    let running = pin!(store.run_concurrent(async |accessor| {
        let mut call = pin!(call(accessor));
        poll_fn(|cx| {
            let polled = call.as_mut().poll(cx);
            if polled.is_pending() && rest.is_wanted.get() {
                accessor.with(|mut access| rest.take(access.as_context_mut().data_mut()));
            }
            polled
        })
        .await
    }));
    let mut running = pin!(watch.or_cut(running));
    loop {
        let until = rest.until.get();
        let turn = poll_fn(|cx| {
            let bell = Arc::new(Bell { has_rung: AtomicBool::new(false), outer: cx.waker().clone() });
            let waker = Waker::from(Arc::clone(&bell));
            rest.is_wanted.set(false);
            // The loop stops as well when one of its tasks has made another ready: then the guest does not rest.
            for _ in 0..MOST_TURNS {
                bell.has_rung.store(false, Ordering::Relaxed);
                if let Poll::Ready(ended) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Poll::Ready(Some(ended));
                }
                if !bell.has_rung.load(Ordering::Relaxed) {
                    break;
                }
            }
            rest.is_wanted.set(true);
            if let Poll::Ready(ended) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(Some(ended));
            }
            if rest.is_interrupted.take() {
                cx.waker().wake_by_ref();
            }
            // Another phase of the answer has another deadline.
            if rest.until.get() == until && rest.cut.get().is_none() { Poll::Pending } else { Poll::Ready(None) }
        });
        let ended = match rest.is_alone.get() {
            false => wait(turn, until),
            // The server's wait refuses to wait on for a client that has left.
            true => {
                let at = until.map_or_else(Instant::now, |(at, _)| at);
                let timed = async { tokio::time::timeout_at(at.into(), turn).await };
                let waited = astra_server::blocking(|| wasmtime_wasi::runtime::in_tokio(timed));
                waited.map_err(|_elapsed| until.map_or(Cut::ClientGone, |(_, cut)| cut))
            }
        };
        match ended {
            Ok(Some(ended)) => return ended??,
            Ok(None) => rest.cut.get().map_or(Ok(()), Err)?,
            Err(Cut::ClientGone) if !rest.is_alone.replace(true) => rest.until.set(None),
            Err(cut) => return Err(cut.into()),
        }
    }
}

/// Turns of the loop before the worker looks at the connection and at the clock in between.
const MOST_TURNS: usize = 64;

/// A waker that says whether it was used. Relaxed: what is of interest is whether this thread has done so.
struct Bell {
    has_rung: AtomicBool,
    outer: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.has_rung.store(true, Ordering::Relaxed);
        self.outer.wake_by_ref();
    }
}

/// What is looked at while the guest rests: all of its tasks wait.
#[derive(Default)]
struct Rest {
    /// It shall be looked at when the loop is polled now.
    is_wanted: Cell<bool>,
    /// The client is gone.
    is_alone: Cell<bool>,
    /// A host call has parked the worker inside of the loop, and has taken wake-ups that were the loop's.
    is_interrupted: Cell<bool>,
    until: Cell<Option<(Instant, Cut)>>,
    cut: Cell<Option<Cut>>,
}

impl Rest {
    fn take(&self, state: &mut State) {
        state.answer.send_out();
        let phase = state.answer.phase();
        let mut until = state.clock.until(phase);
        if self.is_alone.get() {
            match state.clock.without_client(phase) {
                Ok(left) => until = Some(until.filter(|(at, _)| *at < left).unwrap_or((left, Cut::ClientGone))),
                Err(cut) => self.cut.set(Some(cut)),
            }
        }
        self.until.set(until);
        if state.clock.take_parked() {
            self.is_interrupted.set(true);
        }
    }
}
