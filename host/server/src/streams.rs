//! HTTP/2 streams: each is a future of hyper's, polled by whichever worker is free, beside its connection.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
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
        let Some(workers) = self.0.get().and_then(Weak::upgrade) else { return };
        let stream = StreamTask { state: RunState::idle(), workers, future: Mutex::new(Some(Box::pin(future))) };
        Arc::new(stream).notify();
    }
}

struct StreamTask {
    state: RunState,
    workers: Arc<Workers>,
    /// Locked by the runner only. None once it has ended.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl StreamTask {
    fn notify(self: &Arc<Self>) {
        let task: Arc<dyn Task> = self.clone();
        self.workers.notify(&task);
    }
}

impl Task for StreamTask {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn run(self: Arc<Self>) {
        let mut slot = lock(&self.future);
        let Some(future) = slot.as_mut() else { return };
        let waker = Waker::from(self.clone());
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match poll {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => *slot = None,
            Err(panic) => {
                log::error!("a response body panicked: {}", panic_text(&*panic));
                *slot = None;
            }
        }
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
