//! Futures that are no connections of clients — HTTP/2 streams, and what a handler asks of others — each polled by whichever worker is
//! free; and what such futures need of the reactor: timers and sockets.
//!
//! None of them may block, or take long: they are polled between requests, by workers that others wait for.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::exchange::contained;
use crate::run_state::RunState;
use crate::sync::lock;
use crate::tcp_stream::TcpStream;
use crate::timer::Sleep;
use crate::workers::{Task, Workers};

/// Runs futures on the workers of a server, beside its connections: hyper's executor and timer, for clients that handlers use.
/// [`Server::executor`](crate::Server::executor) has it. Before its server has started, and after it has ended, it runs nothing.
///
/// What it runs must not block; that is what handlers are for.
#[derive(Clone, Default)]
pub struct Executor(Arc<OnceLock<Weak<Workers>>>);

impl Executor {
    /// Set once, by the server that starts.
    pub(crate) fn belongs_to(&self, workers: &Arc<Workers>) {
        let _ = self.0.set(Arc::downgrade(workers));
    }

    pub(crate) fn of(workers: &Arc<Workers>) -> Self {
        let executor = Self::default();
        executor.belongs_to(workers);
        executor
    }

    fn workers(&self) -> Weak<Workers> {
        self.0.get().cloned().unwrap_or_default()
    }

    /// Runs `future`. It is dropped when the server has ended.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let future = Mutex::new(Some(Box::pin(future) as Pin<Box<_>>));
        Arc::new(Spawned { state: RunState::idle(), workers: self.workers(), future, cut: AtomicBool::new(false) })
            .notify();
    }

    /// Connects to `address`; the socket's readiness comes from the server's reactor. Small writes are sent at once.
    ///
    /// # Errors
    ///
    /// The system's; also if the server does not run.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(self.workers(), address).await
    }

    /// Is ready at `at`, up to two milliseconds late; never, if the server does not run.
    pub fn sleep_until(&self, at: Instant) -> impl Future<Output = ()> + Send + use<> {
        Sleep::until(self.workers(), at)
    }
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

impl hyper::rt::Timer for Executor {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        hyper::rt::Timer::sleep_until(self, Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep::until(self.workers(), deadline))
    }
}

struct Spawned {
    state: RunState,
    /// Weak, since what the future holds may hold this in turn.
    workers: Weak<Workers>,
    /// Drop the future: of an HTTP/2 stream, reset it.
    cut: AtomicBool,
    /// Locked by the runner only. None once it has ended.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Spawned {
    fn notify(self: &Arc<Self>) {
        let task: Arc<dyn Task> = self.clone();
        match self.workers.upgrade() {
            Some(workers) => workers.notify(&task),
            None => task.abandon(),
        }
    }
}

impl Task for Spawned {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn run(self: Arc<Self>) {
        let mut future = lock(&self.future);
        let waker = Waker::from(self.clone());
        let poll =
            || future.as_mut().map_or(Poll::Ready(()), |future| future.as_mut().poll(&mut Context::from_waker(&waker)));
        let poll = contained("a body or a task", poll).unwrap_or(Poll::Ready(()));
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

impl Wake for Spawned {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
