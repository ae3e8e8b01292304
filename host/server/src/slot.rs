//! What the two sides of an exchange share: the answer on its way to hyper, whether the client is gone, and what the handler's
//! thread has done to its own connection and not yet told anybody. Written by the worker that runs the handler and by whoever
//! polls the connection; every field says of itself which.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use crate::link::Link;
use crate::outgoing::Outgoing;
use crate::sync::lock;
use crate::timer::{Millis, TimerKey, millis};
use crate::workers::Task;

/// Why a client gets no more of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// It has closed or reset its connection or stream.
    Left,
    /// It took nothing for too long, and was cut.
    TooSlow,
    /// The server has ended.
    Stopped,
}

/// Set once, by whoever is first.
#[derive(Default)]
pub(crate) struct WhyGone(AtomicU8);

impl WhyGone {
    pub(crate) fn set(&self, why: Gone) {
        let _ = self.0.compare_exchange(0, why as u8 + 1, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(crate) fn get(&self) -> Option<Gone> {
        let all = [Gone::Left, Gone::TooSlow, Gone::Stopped];
        all.get(usize::from(self.0.load(Ordering::SeqCst).checked_sub(1)?)).copied()
    }
}

/// One exchange, while it lasts.
pub(crate) struct Slot {
    pub(crate) link: Arc<Link>,
    reply: Mutex<Reply>,
    /// The tasks that move this exchange: its connection or HTTP/2 stream, and that stream's connection.
    pub(crate) own: OnceLock<[Option<Arc<dyn Task>>; 2]>,
    /// Which of them were notified by the handler's own thread and not yet polled; bit by index.
    noted: AtomicU8,
    /// The method is HEAD: that hyper drops the body does not mean that the client is gone.
    pub(crate) head: bool,
    pub(crate) gone: WhyGone,
    /// The handler is in a wait of a kind that we do not see: what it notes must not wait for its end.
    pub(crate) blocks: AtomicBool,
    pub(crate) too_large: AtomicBool,
    pub(crate) too_slow: AtomicBool,
    /// The framing of the request's body is broken.
    pub(crate) malformed: AtomicBool,
    /// The answer is given, and its body is not at its end.
    pub(crate) sent: AtomicBool,
    // Relaxed, both: they are looked at seconds later, and an old value only makes the watch look again.
    /// hyper has asked for more of the body than there is.
    pub(crate) hungry: AtomicBool,
    /// When hyper last took something of the body, or h2 wrote some of it.
    pub(crate) taken: AtomicU64,
    /// On HTTP/2, in bytes: what h2 was given of the body, and what of that it has not written. Not relaxed: its end waits for that.
    pub(crate) given: AtomicU64,
    pub(crate) unsent: AtomicU64,
    /// hyper has let go of the answer, and h2 has the rest of it: its stream cannot be reset alone any more.
    pub(crate) left_to_h2: AtomicBool,
    /// Looks whether it still does.
    stall: Mutex<Option<TimerKey>>,
    /// Wakes the handler's thread, should it wait, when the client goes.
    waiter: Mutex<Option<Waker>>,
}

#[derive(Default)]
struct Reply {
    response: Option<http::Response<Outgoing>>,
    waker: Option<Waker>,
}

impl Slot {
    pub(crate) fn new(head: bool, link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            link,
            head,
            reply: Mutex::default(),
            own: OnceLock::new(),
            noted: AtomicU8::new(0),
            gone: WhyGone::default(),
            blocks: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            hungry: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            given: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            left_to_h2: AtomicBool::new(false),
            stall: Mutex::new(None),
            too_large: AtomicBool::new(false),
            too_slow: AtomicBool::new(false),
            malformed: AtomicBool::new(false),
            waiter: Mutex::new(None),
        })
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.get().is_some()
    }

    /// hyper has let go of it: the client will not read (the rest of) the answer, for what the connection knows.
    pub(crate) fn mark_gone(&self) {
        self.mark_gone_for(self.link.why_gone());
    }

    pub(crate) fn mark_gone_for(&self, why: Gone) {
        self.gone.set(why);
        if let Some(waiter) = &*lock(&self.waiter) {
            waiter.wake_by_ref();
        }
    }

    /// Why its client gets no more, once that is so.
    pub(crate) fn why_gone(&self) -> Gone {
        self.gone.get().unwrap_or_else(|| self.link.why_gone())
    }

    /// hyper has taken something of the answer's body.
    pub(crate) fn took(&self) {
        self.taken.store(self.link.workers.reactor.timers.recent(), Ordering::Relaxed);
    }

    /// Whether what h2 was given of the answer is in the window that every stream of this client begins with: what h2 does not write
    /// of it, then, waits for the connection.
    pub(crate) fn fits(&self) -> bool {
        self.given.load(Ordering::Relaxed) <= self.link.stream_window()
    }

    /// The answer's body is dropped, and all that h2 was given of it.
    pub(crate) fn ended(&self) {
        self.sent.store(false, Ordering::SeqCst);
        if let Some(timer) = lock(&self.stall).take() {
            self.link.workers.remove_timer(timer);
        }
    }

    /// While the answer is under way: sees to it that a client that takes nothing of it is cut. On HTTP/2 the socket does not
    /// tell, since a client can withhold the window of one stream; so it is called whenever a handler waits, and when its answer is sent.
    pub(crate) fn watch_stall(self: &Arc<Self>) {
        let mut stall = lock(&self.stall);
        if self.sent.load(Ordering::SeqCst) && stall.is_none() {
            *stall = Some(self.link.workers.add_timer_at(self.stalled_at(), Waker::from(self.clone())));
        }
    }

    /// When the client will have taken nothing for too long. Streams take turns on a connection.
    fn stalled_at(&self) -> Millis {
        let taken = self.taken.load(Ordering::Relaxed);
        let taken = if self.unsent() > 0 && self.fits() { taken.max(self.link.moved()) } else { taken };
        taken.saturating_add(millis(self.link.limits.write_timeout))
    }

    pub(crate) fn unsent(&self) -> u64 {
        self.unsent.load(Ordering::SeqCst)
    }

    /// Says who is to be woken when the client goes; returns who was to be until now.
    pub(crate) fn set_waiter(&self, waiter: Waker) -> Option<Waker> {
        lock(&self.waiter).replace(waiter)
    }

    /// If `task` moves this exchange: notes that it was notified. The thread that runs the handler polls it soon.
    pub(crate) fn note(&self, task: &Arc<dyn Task>) -> bool {
        if self.blocks.load(Ordering::Relaxed) {
            return false;
        }
        let own = self.own.get().map_or(&[] as &[_], |own| own.as_slice());
        let index = own.iter().position(|own| own.as_ref().is_some_and(|own| Arc::ptr_eq(own, task)));
        if let Some(index) = index {
            self.noted.fetch_or(1 << index, Ordering::SeqCst);
        }
        index.is_some()
    }

    /// Takes out the tasks that were noted.
    pub(crate) fn noted(&self) -> impl Iterator<Item = Arc<dyn Task>> + use<> {
        let bits = if self.noted.load(Ordering::SeqCst) == 0 { 0 } else { self.noted.swap(0, Ordering::SeqCst) };
        let task = |index: usize| self.own.get().filter(|_| bits & (1 << index) != 0)?[index].clone();
        [task(0), task(1)].into_iter().flatten()
    }

    /// hyper's end: the answer, or `cx` will be woken when there is one.
    pub(crate) fn poll_reply(&self, cx: &mut Context<'_>) -> Poll<http::Response<Outgoing>> {
        let mut reply = lock(&self.reply);
        if let Some(response) = reply.response.take() {
            return Poll::Ready(response);
        }
        if !reply.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            reply.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// hyper no longer waits for the answer.
    pub(crate) fn abandon_reply(&self) {
        self.mark_gone();
        // Not under the lock: dropping a body runs code of others.
        let unsent = lock(&self.reply).response.take();
        if let Some(mut response) = unsent {
            response.body_mut().end(false);
        }
    }

    /// The handler's end: hands the answer over.
    pub(crate) fn fill(&self, response: http::Response<Outgoing>) {
        let mut response = Some(response);
        let waker = {
            let mut reply = lock(&self.reply);
            // A response that nobody will take must not stay: its body holds this slot.
            if !self.is_gone() {
                reply.response = response.take();
            }
            reply.waker.take()
        };
        if let Some(mut unsent) = response {
            unsent.body_mut().end(false);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The timer of a stall.
impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        *lock(&self.stall) = None;
        let now = self.link.workers.reactor.timers.recent();
        if self.hungry.load(Ordering::Relaxed) && self.unsent() == 0 {
            self.taken.store(now, Ordering::Relaxed);
        }
        if now < self.stalled_at() || !self.sent.load(Ordering::SeqCst) {
            return self.watch_stall();
        }
        self.link.note_slow();
        if !self.link.speaks_http2() {
            // Before the connection is cut, which would be the server's doing.
            self.link.gone.set(Gone::TooSlow);
        }
        self.mark_gone_for(Gone::TooSlow);
        let whole = usize::from(self.left_to_h2.load(Ordering::SeqCst));
        if let Some(Some(task)) = self.own.get().map(|own| own[whole].clone()) {
            task.cut();
        }
    }
}
