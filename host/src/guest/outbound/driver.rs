//! Connections are tasks of Tokio's, but a request that a guest's worker has just handed to one is written out by that worker itself:
//! waking Tokio's thread for it would cost more than the writing. What comes back wakes Tokio's thread, which reads it.
//!
//! A [`Task`] may be polled by either thread, by one at a time: whoever finds it taken leaves word, and the other polls once more.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use hyper::rt::Executor;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The tasks that what is polled on this thread has woken; none while nobody collects them.
    static WOKEN: RefCell<Option<Vec<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Makes tasks of hyper's connections.
#[derive(Clone)]
pub(super) struct Driver;

impl Executor<Boxed> for Driver {
    fn execute(&self, future: Boxed) {
        let task = Arc::new(Task {
            future: Mutex::new(Some(future)),
            is_wanted: AtomicBool::new(false),
            tokio: Mutex::new(Waker::noop().clone()),
        });
        tokio::spawn(std::future::poll_fn(move |cx| {
            task.tokio.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
            if task.run() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

/// Polls `request`, and then the connections that it has been handed to.
pub(super) async fn driving<F: Future>(request: F) -> F::Output {
    let mut request = std::pin::pin!(request);
    std::future::poll_fn(|cx| {
        let outer = WOKEN.replace(Some(Vec::new()));
        let polled = request.as_mut().poll(cx);
        for task in WOKEN.replace(outer).unwrap_or_default() {
            if task.run() {
                task.wake_tokio();
            }
        }
        polled
    })
    .await
}

/// A connection, or what else hyper wants to go on in the background.
struct Task {
    /// None once it has ended.
    future: Mutex<Option<Boxed>>,
    /// It shall be polled, by whoever has it.
    is_wanted: AtomicBool,
    /// Has Tokio's thread poll it.
    tokio: Mutex<Waker>,
}

impl Task {
    /// Polls it, unless another thread does and will see that it is to do so again. Whether it has ended.
    fn run(self: &Arc<Self>) -> bool {
        self.is_wanted.store(true, Ordering::SeqCst);
        while self.is_wanted.load(Ordering::SeqCst) {
            let mut future = match self.future.try_lock() {
                Ok(future) => future,
                Err(TryLockError::WouldBlock) => return false,
                // It has panicked, and nobody can go on with it.
                Err(TryLockError::Poisoned(_)) => return true,
            };
            self.is_wanted.store(false, Ordering::SeqCst);
            let Some(running) = &mut *future else { return true };
            let waker = Waker::from(Arc::clone(self));
            if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                *future = None;
                return true;
            }
        }
        false
    }

    fn wake_tokio(&self) {
        self.tokio.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let is_collected = WOKEN.with_borrow_mut(|woken| match woken {
            Some(woken) if woken.iter().any(|task| Arc::ptr_eq(task, &self)) => true,
            Some(woken) => {
                woken.push(Arc::clone(&self));
                true
            }
            None => false,
        });
        if !is_collected {
            self.wake_tokio();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// A background task that sends back what it is sent, and how often it has been polled.
    fn echo() -> (mpsc::UnboundedSender<oneshot::Sender<usize>>, Boxed) {
        let (send, mut sent) = mpsc::unbounded_channel::<oneshot::Sender<usize>>();
        let polls = AtomicUsize::new(0);
        let echo = std::future::poll_fn(move |cx| {
            let polls = polls.fetch_add(1, Ordering::SeqCst) + 1;
            while let Poll::Ready(sent) = sent.poll_recv(cx) {
                match sent {
                    // Whoever asks waits.
                    Some(answer) => drop(answer.send(polls)),
                    None => return Poll::Ready(()),
                }
            }
            Poll::Pending
        });
        (send, Box::pin(echo))
    }

    #[test]
    fn what_a_request_is_handed_to_is_polled_with_it() {
        // Never driven, but for the first poll: so it is this thread that does what follows.
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        let (send, echo) = echo();
        runtime.block_on(async {
            Driver.execute(echo);
            tokio::task::yield_now().await;
        });
        let (answer, answered) = oneshot::channel();
        let mut request = std::pin::pin!(driving(async {
            send.send(answer).expect("it runs");
            answered.await
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(request.as_mut().poll(&mut cx).is_pending(), "it is handed over first");
        assert_eq!(request.as_mut().poll(&mut cx), Poll::Ready(Ok(2)));
    }

    #[test]
    fn without_a_request_it_is_tokio_that_polls_and_sees_the_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("starts");
        let (send, echo) = echo();
        let ended = Arc::new(());
        let has_ended = Arc::downgrade(&ended);
        runtime.block_on(async {
            Driver.execute(Box::pin(async move {
                let _ended = ended;
                echo.await;
            }));
            for _ in 0..100 {
                let (answer, answered) = oneshot::channel();
                send.send(answer).expect("it runs");
                answered.await.expect("an answer");
            }
            drop(send);
            while has_ended.upgrade().is_some() {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("starts");
        let (send, echo) = echo();
        let _entered = runtime.enter();
        Driver.execute(echo);
        std::thread::scope(|scope| {
            for drives in [true, false, true, false] {
                let (send, runtime) = (send.clone(), &runtime);
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let (answer, answered) = oneshot::channel();
                        let ask = async {
                            send.send(answer).expect("it runs");
                            answered.await
                        };
                        let answer = if drives { runtime.block_on(driving(ask)) } else { runtime.block_on(ask) };
                        assert!(answer.is_ok());
                    }
                });
            }
        });
    }
}
