//! HTTP/2 streams: each is a future of hyper's, polled by whichever worker is free, beside its connection.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::exchange::panic_text;
use crate::run_state::RunState;
use crate::sync::lock;
use crate::workers::{Task, Workers};

/// hyper's executor. The workers are known once the server has started.
#[derive(Clone, Default)]
pub(crate) struct Streams(pub(crate) Arc<OnceLock<Weak<Workers>>>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let Some(workers) = self.0.get().cloned() else { return };
        let future = Mutex::new(Some(Box::pin(future) as Pin<Box<_>>));
        Arc::new(StreamTask { state: RunState::idle(), workers, future, cut: AtomicBool::new(false) }).notify();
    }
}

struct StreamTask {
    state: RunState,
    /// Weak, since what the future holds may hold this in turn.
    workers: Weak<Workers>,
    /// Reset the stream.
    cut: AtomicBool,
    /// Locked by the runner only. None once it has ended.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl StreamTask {
    fn notify(self: &Arc<Self>) {
        let task: Arc<dyn Task> = self.clone();
        match self.workers.upgrade() {
            Some(workers) => workers.notify(&task),
            None => task.abandon(),
        }
    }
}

impl Task for StreamTask {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn run(self: Arc<Self>) {
        let mut future = lock(&self.future);
        let waker = Waker::from(self.clone());
        let poll =
            || future.as_mut().map_or(Poll::Ready(()), |future| future.as_mut().poll(&mut Context::from_waker(&waker)));
        let poll = catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|panic| {
            log::error!("a response body panicked: {}", panic_text(&*panic));
            Poll::Ready(())
        });
        if poll.is_ready() || self.cut.load(Ordering::SeqCst) {
            // hyper resets a stream that is dropped before its end.
            let ended = future.take();
            drop(future);
            drop(ended);
        }
    }

    fn cut(self: Arc<Self>) {
        self.cut.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn abandon(self: Arc<Self>) {
        // Whoever holds the lock is polling it, and drops it as well.
        let ended = self.future.try_lock().ok().and_then(|mut future| future.take());
        drop(ended);
    }
}

impl Wake for StreamTask {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
