//! Guests of WASI 0.3, which have tasks of their own: where their event loop runs, and where it waits.
//!
//! The loop runs on the worker of the request and in its seat, and stops whenever all of the guest's tasks wait for the host; then the
//! worker parks as for any guest (`blocking.rs`), under the same deadlines. Nothing but the loop has the store meanwhile, so it is asked
//! inside of the loop how long that may be: by polling once more before the worker parks. What these guests sleep on, their sockets and
//! their files are wasmtime-wasi's, which are Tokio's: the worker has entered it for its life (`host.rs`), and its thread wakes the loop.

use std::{
    cell::Cell,
    future::poll_fn,
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use wasmtime::{AsContextMut as _, Result, Store, component::Accessor};

use super::{
    blocking,
    instance::State,
    limits::{Cut, Phase},
};

/// Turns of the loop before the worker looks at the connection and at the clock in between.
const MOST_TURNS: usize = 64;

/// Makes a guest's instance, which rarely waits for anything.
///
/// # Errors
/// It cannot be made, or the deadline has passed or the client is gone meanwhile.
pub(crate) fn instantiate<T>(
    store: &mut Store<State>,
    make: impl AsyncFnOnce(&mut Store<State>) -> Result<T>,
) -> Result<T> {
    let until = store.data_mut().clock.until(Phase::Head);
    blocking::park(make(store), until, false)?
}

/// Runs `call` in the event loop of a guest, on the calling worker, until it has ended.
///
/// # Errors
/// The guest trapped, the deadline has passed, the request was cut, or the client is gone.
pub(crate) fn run<R>(store: &mut Store<State>, call: impl AsyncFnOnce(&Accessor<State>) -> Result<R>) -> Result<R> {
    let watch = Arc::clone(store.data().clock.watch());
    let (is_asked, until) = (Cell::new(false), Cell::new(Ok(store.data_mut().clock.until(Phase::Head))));
    let running = pin!(store.run_concurrent(async |accessor| {
        let mut call = pin!(call(accessor));
        poll_fn(|cx| {
            let polled = call.as_mut().poll(cx);
            if polled.is_pending() && is_asked.get() {
                until.set(accessor.with(|mut access| rest(access.as_context_mut().data_mut())));
            }
            polled
        })
        .await
    }));
    let mut running = pin!(watch.or_cut(running));
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(Arc::clone(&bell));
    let mut poll = |asks| {
        is_asked.set(asks);
        running.as_mut().poll(&mut Context::from_waker(&waker))
    };
    let mut is_alone = false;
    loop {
        // The loop stops as well when one of its tasks has made another ready: then the guest does not rest.
        for _ in 0..MOST_TURNS {
            if let Poll::Ready(ended) = poll(false) {
                return ended??;
            }
            if !bell.has_rung() {
                break;
            }
        }
        if let Poll::Ready(ended) = poll(true) {
            return ended??;
        }
        match blocking::park(bell.rung(), until.get()?, is_alone) {
            Err(Cut::ClientGone) if !is_alone => {
                is_alone = true;
                until.set(Err(Cut::ClientGone)); // unless it says otherwise when it is asked again
            }
            waited => waited?,
        }
    }
}

/// All of the guest's tasks wait: what there is of its answer goes out. Until when it may rest.
fn rest(state: &mut State) -> Result<Option<(Instant, Cut)>, Cut> {
    state.clock.show_cpu();
    state.answer.send_out();
    let phase = state.answer.phase();
    match state.is_alone() {
        false => Ok(state.clock.until(phase)),
        true => state.clock.until_alone(phase).map(Some),
    }
}

/// Ends the turn of the event loop that polls this; there is another one at once.
pub(crate) async fn turn() {
    let mut has_turned = false;
    poll_fn(|cx| match mem::replace(&mut has_turned, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Rung by what the event loop waits for. It keeps what it has heard, whatever else wakes the worker or waits on it: a host call inside
/// of the loop may.
#[derive(Default)]
struct Bell {
    has_rung: AtomicBool,
    listener: Mutex<Option<Waker>>,
}

impl Bell {
    /// Whether it has since it was last asked.
    fn has_rung(&self) -> bool {
        self.has_rung.swap(false, Ordering::SeqCst)
    }

    /// Waits until it rings. If it has rung already the worker does not park, but looks at the connection and at the clock.
    async fn rung(&self) {
        if self.has_rung() {
            return turn().await;
        }
        poll_fn(|cx| {
            *self.listener() = Some(cx.waker().clone());
            if self.has_rung() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn listener(&self) -> MutexGuard<'_, Option<Waker>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.has_rung.swap(true, Ordering::SeqCst) {
            return;
        }
        let listener = self.listener().take();
        if let Some(listener) = listener {
            listener.wake();
        }
    }
}
