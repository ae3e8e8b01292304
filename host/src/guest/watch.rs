//! One request, looked at and cut from outside of its thread.
//!
//! A [`Watch`] is shared by the worker that runs a request and by whoever lists requests or ends them, which is any
//! thread. A cut is noticed where deadlines are: at the guest's next tick if it computes (`instance.rs`), at once if it
//! is parked (`blocking.rs`). What it waits for is noted by what it waits for, while it is polled: only that knows.
//! Nothing here blocks.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use super::limits::Cut;

/// One request, as others see it. Made by whoever runs it ([`Exchange::watch`](super::Exchange::watch)).
#[derive(Debug, Default)]
pub struct Watch {
    signal: Mutex<Signal>,
    /// [`WaitsFor`], and [`PARKED`]; zero while it runs. Written by the request's worker only, read by all; nothing is
    /// published with it.
    waits: AtomicU8,
    /// The worker's thread id while its CPU time is that of the request, else zero. Published after `cpu_started`.
    thread: AtomicU32,
    /// What that thread had used at the start, in nanoseconds.
    cpu_started: AtomicU64,
}

#[derive(Debug, Default)]
struct Signal {
    cut: Option<CutBy>,
    /// Wakes the worker that is parked.
    parked: Option<Waker>,
}

/// Who ends a request that would go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    /// An operator has asked for it.
    Operator,
    /// Its revision was replaced, and the time for draining is over.
    Drain,
}

/// What a guest can wait for that is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WaitsFor {
    /// The request's body.
    Body = 1,
    /// A clock.
    Sleep = 2,
    /// The client, to take more of the response.
    Client = 4,
    /// A name to be looked up.
    Network = 8,
    /// The response to a request of its own, or more of it.
    Outgoing = 16,
}

const NAMES: [(WaitsFor, &str); 5] = [
    (WaitsFor::Body, "body"),
    (WaitsFor::Sleep, "sleep"),
    (WaitsFor::Client, "client"),
    (WaitsFor::Network, "network"),
    (WaitsFor::Outgoing, "outgoing"),
];

/// The bit in `waits` that says that it waits at all.
const PARKED: u8 = 0x80;

thread_local! {
    /// What has been found pending on this thread since [`Watch::or_cut`] has begun to poll.
    static PENDING: Cell<u8> = const { Cell::new(0) };
    /// This thread's id, which costs a system call.
    #[cfg(target_os = "linux")]
    static THREAD: u32 = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
}

impl Watch {
    /// Ends the request: at its next tick if it computes, at once if it waits, else when it next does either. The first
    /// one who cuts it counts; a request that has ended is none the worse. Whether this was the first.
    pub fn cut(&self, by: CutBy) -> bool {
        let mut signal = self.signal();
        let is_first = signal.cut.is_none();
        signal.cut.get_or_insert(by);
        let parked = signal.parked.take();
        drop(signal);
        if let Some(parked) = parked {
            parked.wake();
        }
        is_first
    }

    /// `running`, or what it waits for: `body` (more of the request's), `sleep`, `client` (which takes no more of the
    /// response), `network` (a name to be looked up), `outgoing` (the response to a request of its own), several joined
    /// by commas, or `io` for anything else, which is files and sockets.
    pub fn waits_for(&self) -> String {
        match self.waits.load(Ordering::Relaxed) {
            0 => "running".to_owned(),
            PARKED => "io".to_owned(),
            waits => {
                let names = NAMES.iter().filter(|(bit, _)| waits & *bit as u8 != 0).map(|(_, name)| *name);
                names.collect::<Vec<_>>().join(",")
            }
        }
    }

    /// CPU time so far. None before the first tick or wait, which is no more than two milliseconds, nor once the request has ended, nor on other
    /// systems than Linux.
    pub fn cpu(&self) -> Option<Duration> {
        let thread = self.thread.load(Ordering::Acquire);
        if thread == 0 {
            return None;
        }
        // The kernel brings this up to date at its own ticks only, so it may be older than the start.
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
        let now: u64 = text.split(' ').next()?.parse().ok()?;
        Some(Duration::from_nanos(now.saturating_sub(self.cpu_started.load(Ordering::Relaxed))))
    }

    /// The request runs on this thread, which had used so much CPU time at its start.
    pub(crate) fn started(&self, cpu: Duration) {
        #[cfg(target_os = "linux")]
        {
            self.cpu_started.store(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.thread.store(THREAD.with(|thread| *thread), Ordering::Release);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = cpu;
    }

    /// The request has ended: its thread is another's.
    pub(crate) fn ended(&self) {
        self.thread.store(0, Ordering::Release);
    }

    /// Whether a guest that is running may go on.
    ///
    /// # Errors
    /// It was cut.
    pub(crate) fn check(&self) -> Result<(), Cut> {
        self.signal().cut.map_or(Ok(()), |by| Err(by.into()))
    }

    /// Waits for `future` unless the request is cut, and tells meanwhile what is waited for. To be polled on the
    /// request's thread. Inside of another such wait it takes that one's place, and wakes it at its end.
    ///
    /// # Errors
    /// It was cut.
    pub(crate) async fn or_cut<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Cut> {
        let _parked = Parked { watch: self, around: self.signal().parked.take() };
        poll_fn(|cx| {
            let mut signal = self.signal();
            if let Some(by) = signal.cut {
                return Poll::Ready(Err(by.into()));
            }
            // Under the lock that whoever cuts takes: either it is seen above or it sees this.
            if !signal.parked.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                signal.parked = Some(cx.waker().clone());
            }
            drop(signal);
            PENDING.set(0);
            self.waits.store(0, Ordering::Relaxed);
            let polled = future.as_mut().poll(cx);
            self.waits.store(PARKED | PENDING.get(), Ordering::Relaxed);
            polled.map(Ok)
        })
        .await
    }

    fn signal(&self) -> MutexGuard<'_, Signal> {
        // Nothing panics while the lock is held.
        self.signal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, the request waits.
struct Parked<'a> {
    watch: &'a Watch,
    /// Who waits around this.
    around: Option<Waker>,
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.watch.waits.store(0, Ordering::Relaxed);
        self.watch.signal().parked = None;
        if let Some(around) = self.around.take() {
            around.wake();
        }
    }
}

/// What is polled on this thread is pending because of this.
pub(crate) fn note(waits_for: WaitsFor) {
    PENDING.set(PENDING.get() | waits_for as u8);
}

/// `future`, which notes whenever it is pending.
pub(crate) async fn noting<F: Future>(waits_for: WaitsFor, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        if polled.is_pending() {
            note(waits_for);
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        sync::{Arc, atomic::AtomicBool},
        task::Context,
        time::Instant,
    };

    use super::*;
    use crate::guest::{cpu_time::CpuTime, wakers::tests::Counts};

    #[test]
    fn a_cut_wakes_who_is_parked_and_no_one_else() {
        let (watch, counts) = (Watch::default(), Arc::<Counts>::default());
        let waker = Waker::from(Arc::clone(&counts));
        {
            let mut never = pin!(pending::<()>());
            let mut wait = pin!(watch.or_cut(never.as_mut()));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            watch.cut(CutBy::Drain);
            watch.cut(CutBy::Operator);
            assert_eq!(counts.0.load(Ordering::SeqCst), 1);
            assert_eq!(wait.poll(&mut Context::from_waker(&waker)), Poll::Ready(Err(Cut::Drained)), "the first counts");
        }
        assert_eq!(watch.check(), Err(Cut::Drained));
        watch.cut(CutBy::Operator);
        assert_eq!(counts.0.load(Ordering::SeqCst), 1, "nothing is left behind");
    }

    #[test]
    fn a_wait_around_another_looks_again_after_it() {
        let (watch, counts) = (Watch::default(), Arc::<Counts>::default());
        let waker = Waker::from(Arc::clone(&counts));
        let mut inner = Some(());
        let mut around = pin!(poll_fn(|_| {
            if inner.take().is_some() {
                let mut never = pin!(pending::<()>());
                let mut wait = pin!(watch.or_cut(never.as_mut()));
                assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            Poll::<()>::Pending
        }));
        let mut wait = pin!(watch.or_cut(around.as_mut()));
        let mut cx = Context::from_waker(&waker);
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        assert_eq!(counts.0.load(Ordering::SeqCst), 1, "its place was taken");
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        watch.cut(CutBy::Operator);
        assert_eq!(counts.0.load(Ordering::SeqCst), 2);
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(Err(Cut::Killed)));
    }

    #[test]
    fn what_is_waited_for_is_told_while_it_is() {
        let watch = Watch::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(watch.waits_for(), "running");
        note(WaitsFor::Body); // of somebody before
        {
            let mut never = pin!(pending::<()>());
            let mut wait = pin!(watch.or_cut(never.as_mut()));
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert_eq!(watch.waits_for(), "io");
        }
        assert_eq!(watch.waits_for(), "running");
        let woken = AtomicBool::new(false);
        let mut one_of_two = pin!(poll_fn(|_| {
            note(WaitsFor::Client);
            if woken.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            note(WaitsFor::Sleep);
            Poll::Pending
        }));
        let mut wait = pin!(watch.or_cut(one_of_two.as_mut()));
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        assert_eq!(watch.waits_for(), "sleep,client");
        woken.store(true, Ordering::Relaxed);
        assert!(wait.as_mut().poll(&mut cx).is_ready());
        assert_eq!(watch.waits_for(), "running");
        assert!(pin!(noting(WaitsFor::Body, ready(()))).poll(&mut cx).is_ready());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn cpu_time_is_that_of_the_request() {
        let watch = Watch::default();
        assert_eq!(watch.cpu(), None, "not known yet");
        let mut time = CpuTime::start(Instant::now());
        watch.started(time.from());
        let used = || watch.cpu().expect("this thread is there");
        while time.used() < Duration::from_millis(50) {}
        // Seen from another thread, the kernel's count may be some ticks old.
        assert!(std::thread::scope(|scope| scope.spawn(used).join().expect("reads")) > Duration::from_millis(10));
        watch.started(Duration::MAX);
        assert_eq!(used(), Duration::ZERO, "never nonsense");
        watch.ended();
        assert_eq!(watch.cpu(), None);
    }
}
