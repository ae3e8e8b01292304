//! The worker threads: the loop that does what `Seats` decides. (How a request waits is in `wait.rs`, the monitor in `monitor.rs`.)
//!
//! A worker never runs a handler inside hyper's `poll`: polling a connection at most queues a request. While a handler runs,
//! what it does to its own connection (an answer, a chunk, interest in more input) is not announced to other threads at once:
//! it is noted in the request's slot, and this thread polls the connection itself as soon as the handler waits or flushes. When it
//! ends, that may wait for a few more short requests (`HOLD`): answers that go out in a row wake a client fewer times, and find
//! the code that sends them in the cache. The monitor sees to it that nothing is noted for much longer than a tick.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Wake, Waker};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::exchange::{Queued, contained};
use crate::lanes::{Held, Nanos, Turn};
use crate::monitor::TICK;
use crate::reactor::Reactor;
use crate::run_state::RunState;
use crate::seats::{Bounds, Call, Done, Member, Pace, Role, Seats, Step};
use crate::slot::{Gone, Slot};
use crate::sync::lock;
use crate::timer::{Millis, TimerKey};
use crate::upload::Uploads;

/// Tasks between two looks at the reactor while the queue does not run dry (as in Tokio, and as prime); a request that is expected to be
/// slow counts as several.
const TASKS_PER_POLL: u64 = 61;

/// How long an answer may wait for others, by what their requests are expected to take; and for how many tasks.
const HOLD: Nanos = 200_000;
const MOST_HELD: u32 = 32;

/// One request in so many is timed for its lane's average; reading the clock for each would cost a hello 1 %.
const TIMED: u32 = 8;

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// Something that is polled by whichever worker is free.
pub(crate) trait Task: Send + Sync + 'static {
    fn state(&self) -> &RunState;
    /// One run; the state is RUNNING, so there is no other at the same time.
    fn run(self: Arc<Self>);
    /// Shutdown: take nothing new, and end with what is under way.
    fn drain(self: Arc<Self>) {}
    /// Whether an exchange is under way.
    fn is_busy(&self) -> bool {
        false
    }
    /// Shutdown: nothing is under way anywhere, so there is no reason to wait for more.
    fn hush(self: Arc<Self>) {}
    /// End now.
    fn cut(self: Arc<Self>) {}
    /// It will not be run any more: the workers have ended.
    fn abandon(self: Arc<Self>) {}
}

/// Runs around the life of a worker thread.
pub(crate) type Around = dyn Fn(&mut dyn FnMut()) + Send + Sync;

/// What the embedder may set.
pub(crate) struct Options {
    pub(crate) bounds: Bounds,
    pub(crate) queue_timeout: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) stack: usize,
    pub(crate) around: Box<Around>,
    pub(crate) on_tick: Box<dyn Fn() + Send + Sync>,
}

pub(crate) struct Workers {
    pub(crate) options: Options,
    pub(crate) seats: Seats<Arc<dyn Task>, Box<Queued>>,
    pub(crate) reactor: Reactor,
    pub(crate) uploads: Uploads,
    threads: Mutex<Threads>,
    pub(crate) closed: AtomicBool,
    /// Tasks that were notified after that. They are given up when no worker is left: who notifies one may hold what it locks when it is
    /// dropped. None from then on.
    orphans: Mutex<Option<Vec<Arc<dyn Task>>>>,
    /// When a queue was last looked through for requests in vain. Relaxed: two looks at a time do no harm.
    swept: AtomicU64,
    failed_starts: AtomicU64,
    /// Something was noted since the monitor last looked: hundreds of threads that wait are not worth a look each tick.
    pub(crate) any_noted: AtomicBool,
    /// False while the monitor sleeps. Cleared by the monitor, set by whoever wakes it.
    pub(crate) monitor_awake: AtomicBool,
}

#[derive(Default)]
struct Threads {
    next: u64,
    workers: HashMap<u64, Arc<Worker>>,
    handles: HashMap<u64, JoinHandle<()>>,
    /// Ended by themselves; joined by whoever starts the next thread, or at the end.
    ended: Vec<JoinHandle<()>>,
    monitor: Option<JoinHandle<()>>,
}

/// One worker thread, as it sees itself; the monitor reads it too.
pub(crate) struct Worker {
    pub(crate) member: Arc<Member>,
    /// Ends a wait of the request; the same for the life of the thread.
    pub(crate) waker: Waker,
    #[cfg(target_os = "linux")]
    pub(crate) thread_id: rustix::thread::Pid,
    /// Written by the worker, read by the monitor.
    pub(crate) work: Mutex<Work>,
}

/// What a worker is at.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) running: Option<Running>,
    /// How often a request has had its seat.
    stretches: u32,
    /// Requests that have ended and whose answers wait for others. The monitor too may take them out.
    held: Vec<Arc<Slot>>,
}

struct Wakeup {
    workers: Weak<Workers>,
    member: Arc<Member>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(workers) = self.workers.upgrade() {
            workers.act(workers.seats.wake(&self.member));
        }
    }
}

#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) slot: Arc<Slot>,
    /// When it last got its seat; to the nanosecond, if that time is one of those that are measured.
    pub(crate) since: Millis,
    timed: Option<Instant>,
    turn: Turn,
    /// Its worker has given up its seat: it does not compute.
    pub(crate) waits: bool,
}

impl Running {
    /// How long it has held its seat since.
    pub(crate) fn held(&self, workers: &Workers) -> Held {
        let ticks = workers.reactor.timers.recent().saturating_sub(self.since);
        match self.timed {
            Some(timed) => Held::Sample(nanos(timed.elapsed())),
            None if ticks > 1 => Held::Long(nanos(Duration::from_millis(ticks))),
            None => Held::Unknown,
        }
    }
}

impl Work {
    fn begin(&mut self, workers: &Workers, slot: Arc<Slot>, turn: Turn) {
        self.running = Some(Running { slot, since: 0, timed: None, turn, waits: true });
        self.go_on(workers);
    }

    /// The request has its seat (again).
    pub(crate) fn go_on(&mut self, workers: &Workers) {
        let Some(running) = &mut self.running else { return };
        self.stretches = self.stretches.wrapping_add(1);
        let is_timed = running.turn.is_timed() || self.stretches.is_multiple_of(TIMED);
        running.timed = is_timed.then(Instant::now);
        running.since = workers.reactor.timers.recent();
        running.waits = false;
    }

    /// The request has not given up its seat after all.
    pub(crate) fn still_runs(&mut self) {
        if let Some(running) = &mut self.running {
            running.waits = false;
        }
    }
}

thread_local! {
    static WORKER: OnceCell<(Arc<Workers>, Arc<Worker>)> = const { OnceCell::new() };
    /// The request that this thread runs.
    static SLOT: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
    /// The task that this thread polls.
    static POLLED: RefCell<Option<Arc<dyn Task>>> = const { RefCell::new(None) };
    /// In the worker loop, outside of any handler: the loop looks at the queue again before it parks.
    static IN_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// The task that this thread is polling.
pub(crate) fn polled() -> Option<Arc<dyn Task>> {
    POLLED.with_borrow(Clone::clone)
}

pub(crate) fn current_worker() -> Option<(Arc<Workers>, Arc<Worker>)> {
    WORKER.with(|worker| worker.get().cloned())
}

pub(crate) fn current_slot() -> Option<Arc<Slot>> {
    SLOT.with_borrow(Clone::clone)
}

impl Workers {
    pub(crate) fn start(options: Options) -> io::Result<Arc<Self>> {
        let workers = Arc::new(Self {
            seats: Seats::new(options.bounds),
            uploads: Uploads::new(options.bounds.open, options.bounds.queued),
            options,
            reactor: Reactor::new()?,
            threads: Mutex::default(),
            closed: AtomicBool::new(false),
            orphans: Mutex::new(Some(Vec::new())),
            swept: AtomicU64::new(0),
            failed_starts: AtomicU64::new(0),
            any_noted: AtomicBool::new(false),
            monitor_awake: AtomicBool::new(true),
        });
        let this = workers.clone();
        let monitor = Builder::new().name("astra-monitor".to_owned()).spawn(move || this.within(|| this.watch()))?;
        lock(&workers.threads).monitor = Some(monitor);
        workers.act(workers.seats.first());
        Ok(workers)
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.seats.bounds()
    }

    /// Asks for a run of `task`, from any thread.
    pub(crate) fn notify(self: &Arc<Self>, task: &Arc<dyn Task>) {
        if self.closed.load(Ordering::SeqCst) {
            return self.orphan(task.clone());
        }
        if !SLOT.with_borrow(|slot| slot.as_ref().is_some_and(|slot| slot.note(task))) {
            return self.enqueue(task.clone());
        }
        // After the note: who clears this looks at the notes next.
        if !self.any_noted.load(Ordering::SeqCst) {
            self.any_noted.store(true, Ordering::SeqCst);
        }
    }

    fn enqueue(self: &Arc<Self>, task: Arc<dyn Task>) {
        if task.state().notify() {
            self.push(task);
        }
    }

    fn push(self: &Arc<Self>, task: Arc<dyn Task>) {
        match self.seats.push(task, self.in_my_loop()) {
            Ok(call) => self.act(call),
            Err(task) => self.orphan(task),
        }
    }

    /// Nobody will run it.
    fn orphan(&self, task: Arc<dyn Task>) {
        let mut orphans = lock(&self.orphans);
        match &mut *orphans {
            Some(orphans) => orphans.push(task),
            None => {
                drop(orphans);
                task.abandon();
            }
        }
    }

    fn abandon_orphans(&self) {
        loop {
            let orphans = {
                let mut orphans = lock(&self.orphans);
                if orphans.as_ref().is_none_or(Vec::is_empty) {
                    *orphans = None;
                    return;
                }
                orphans.replace(Vec::new())
            };
            // Each may notify others.
            orphans.into_iter().flatten().for_each(Task::abandon);
        }
    }

    /// Queues a request to be started.
    pub(crate) fn push_request(self: &Arc<Self>, request: Box<Queued>) -> Result<(), Box<Queued>> {
        let lane = request.lane();
        let call = self.seats.push_request(request, &lane, self.in_my_loop()).or_else(|request| {
            // Those whose client has gone need no place; but a look at all of them costs as much as a refusal, and there are many of those.
            let now = self.reactor.timers.recent();
            if self.swept.swap(now, Ordering::Relaxed) == now {
                return Err(request);
            }
            let gone = self.seats.expire(|request| request.slot().is_gone());
            if gone.is_empty() { Err(request) } else { self.seats.push_request(request, &lane, self.in_my_loop()) }
        })?;
        self.act(call);
        self.wake_monitor();
        Ok(())
    }

    /// Whether this thread is in the loop of these workers, and will look at the queue again.
    fn in_my_loop(self: &Arc<Self>) -> bool {
        IN_LOOP.get() && WORKER.with(|worker| worker.get().is_some_and(|(workers, _)| Arc::ptr_eq(workers, self)))
    }

    pub(crate) fn add_timer(&self, at: Instant, waker: Waker) -> TimerKey {
        self.add_timer_at(self.reactor.timers.deadline(at), waker)
    }

    pub(crate) fn add_timer_at(&self, at: u64, waker: Waker) -> TimerKey {
        let (key, earliest) = self.reactor.timers.add(at, waker);
        if earliest {
            self.reactor.wake_for_timer(at);
        }
        key
    }

    pub(crate) fn remove_timer(&self, key: TimerKey) {
        self.reactor.timers.remove(key);
    }

    /// Requests that were started and have not ended.
    pub(crate) fn open(&self) -> usize {
        self.seats.open()
    }

    /// Tells every running request that its client gets no more, even those that have answered and go on computing.
    pub(crate) fn cut_requests(&self) {
        for (_, running) in self.running(|_| true) {
            running.slot.mark_gone_for(Gone::Stopped);
        }
    }

    /// Ends every worker and the monitor and joins them, but for workers whose requests still run. Says how many those are.
    pub(crate) fn close(&self) -> usize {
        self.closed.store(true, Ordering::SeqCst);
        let (parked, tasks, requests) = self.seats.close();
        tasks.into_iter().for_each(|task| self.orphan(task));
        drop(requests);
        for member in parked {
            member.parker().unpark();
        }
        self.reactor.wake();
        self.wake_monitor();
        let mut left = 0;
        loop {
            let handles: Vec<_> = {
                let mut threads = lock(&self.threads);
                let threads = &mut *threads;
                let is_busy = |worker: &Arc<Worker>| lock(&worker.work).running.is_some();
                let busy = threads.handles.extract_if(|id, _| threads.workers.get(id).is_some_and(is_busy));
                left += busy.count();
                threads
                    .handles
                    .drain()
                    .map(|(_, handle)| handle)
                    .chain(threads.ended.drain(..))
                    .chain(threads.monitor.take())
                    .collect()
            };
            if handles.is_empty() {
                self.reactor.end();
                self.abandon_orphans();
                return left;
            }
            for handle in handles {
                // A panic of ours has been printed by the thread itself.
                let _ = handle.join();
            }
        }
    }

    pub(crate) fn act(self: &Arc<Self>, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Member(member) => member.parker().unpark(),
            Call::Poller => self.reactor.wake(),
            Call::Start(role) => {
                if let Err(error) = self.start_worker(role) {
                    self.seats.not_started(role);
                    // Tried again at each tick, and said once in so many.
                    if self.failed_starts.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
                        log::error!("cannot start a worker thread: {error}");
                    }
                }
            }
        }
    }

    fn start_worker(self: &Arc<Self>, role: Role) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        for ended in threads.ended.drain(..) {
            let _ = ended.join();
        }
        threads.next += 1;
        let id = threads.next;
        let this = self.clone();
        let handle =
            Builder::new().name("astra-worker".to_owned()).stack_size(self.options.stack).spawn(move || {
                this.within(|| this.work(id, role));
            })?;
        threads.handles.insert(id, handle);
        Ok(())
    }

    /// Calls `work` inside of what the embedder wants around it.
    fn within(&self, work: impl FnOnce()) {
        let mut work = Some(work);
        (self.options.around)(&mut || {
            if let Some(work) = work.take() {
                work();
            }
        });
    }

    /// The worker loop.
    fn work(self: &Arc<Self>, id: u64, mut role: Role) {
        let member = Member::new(role);
        let me = Arc::new(Worker {
            waker: Waker::from(Arc::new(Wakeup { workers: Arc::downgrade(self), member: member.clone() })),
            member,
            #[cfg(target_os = "linux")]
            thread_id: rustix::thread::gettid(),
            work: Mutex::default(),
        });
        lock(&self.threads).workers.insert(id, me.clone());
        WORKER.with(|worker| worker.set((self.clone(), me.clone())).ok());
        IN_LOOP.set(true);
        let mut done = Done::Arrived;
        let mut tasks = 0;
        // Tasks since an answer is held, and what the requests among them are expected to take; no tasks: none is.
        let (mut held, mut held_for) = (0, 0);
        loop {
            let overdue = tasks >= TASKS_PER_POLL;
            if held > MOST_HELD || overdue {
                self.send_held(&me);
                held = 0;
            }
            let pace = Pace { overdue, holds: held > 0 };
            let (step, call) = self.seats.next(&me.member, &mut role, done, pace);
            self.act(call);
            done = match step {
                Step::Poll(task) => {
                    tasks += 1;
                    held += u32::from(held > 0);
                    if task.state().start() {
                        self.run_task(task);
                    }
                    Done::Polled
                }
                Step::Request(request, turn) => {
                    held_for += turn.expected;
                    if held > 0 && held_for > HOLD {
                        self.send_held(&me);
                        held = 0;
                    }
                    if held == 0 {
                        held_for = 0;
                    }
                    let time = self.run_request(&me, request, turn);
                    tasks = if time.is_long() { TASKS_PER_POLL } else { tasks + 1 + turn.polls() };
                    held += 1;
                    Done::Request(time)
                }
                Step::Send => {
                    self.send_held(&me);
                    held = 0;
                    Done::Polled
                }
                Step::React { wait } => {
                    tasks = 0;
                    Done::Reacted(self.reactor.poll(wait))
                }
                Step::Rest => {
                    std::thread::sleep(TICK);
                    Done::Polled
                }
                Step::Park => {
                    let parker = me.member.parker();
                    if !parker.park_until(Some(Instant::now() + self.options.keep_alive)) {
                        if self.seats.retire(&me.member) {
                            break;
                        }
                        parker.park();
                    }
                    Done::Arrived
                }
                Step::Exit => break,
            };
        }
        self.send_held(&me);
        let mut threads = lock(&self.threads);
        threads.workers.remove(&id);
        if let Some(handle) = threads.handles.remove(&id) {
            threads.ended.push(handle);
        }
    }

    /// Runs a task whose state the caller has moved to RUNNING.
    pub(crate) fn run_task(self: &Arc<Self>, task: Arc<dyn Task>) {
        let outer = POLLED.replace(Some(task.clone()));
        // Our own code does not panic; that of a foreign body, which is dropped here too, may.
        contained("a response body", || task.clone().run());
        POLLED.set(outer);
        if task.state().finish() {
            self.push(task);
        }
    }

    /// Says how long it held its seat at last.
    fn run_request(self: &Arc<Self>, me: &Arc<Worker>, request: Box<Queued>, turn: Turn) -> Held {
        self.wake_monitor();
        let slot = request.slot().clone();
        let holds = {
            let mut work = lock(&me.work);
            work.begin(self, slot.clone(), turn);
            !work.held.is_empty()
        };
        if holds {
            // After `running`, by which the monitor finds what is held.
            self.any_noted.store(true, Ordering::SeqCst);
        }
        SLOT.set(Some(slot.clone()));
        IN_LOOP.set(false);
        me.member.take_woken();
        slot.set_waiter(me.waker.clone());
        contained("a handler", || request.run());
        IN_LOOP.set(true);
        SLOT.set(None);
        let mut work = lock(&me.work);
        work.held.push(slot);
        work.running.take().map_or(Held::Unknown, |running| running.held(self))
    }

    /// Polls the connections of the requests that have ended on this thread, before it does anything that may take long.
    pub(crate) fn send_held(self: &Arc<Self>, me: &Worker) {
        // What this wakes may belong to the connection of the request that runs here, which is about to wait.
        let current = SLOT.take();
        let mut held = std::mem::take(&mut lock(&me.work).held);
        for slot in &held {
            self.poll_own(slot);
        }
        for slot in held.drain(..) {
            self.poll_carrier(&slot);
            slot.watch_stall();
        }
        lock(&me.work).held = held; // its room
        SLOT.set(current);
    }

    /// The same from another thread, by way of the run queue.
    pub(crate) fn announce_held(self: &Arc<Self>, worker: &Worker) {
        let held = std::mem::take(&mut lock(&worker.work).held);
        for slot in held {
            self.announce_noted(&slot);
            slot.watch_stall();
        }
    }

    /// Polls the connection (and the HTTP/2 stream) of `slot` on this thread, if anything was noted for it.
    pub(crate) fn poll_own(self: &Arc<Self>, slot: &Arc<Slot>) {
        for _ in 0..8 {
            let mut some = false;
            for task in slot.noted() {
                some = true;
                if task.state().steal() {
                    self.run_task(task);
                } else {
                    self.enqueue(task);
                }
            }
            if !some {
                return;
            }
        }
        self.announce_noted(slot);
    }

    /// Polls the connection that carries the HTTP/2 stream of `slot`, if there is something of its answer to write.
    fn poll_carrier(self: &Arc<Self>, slot: &Slot) {
        if slot.unsent() > 0
            && let Some([_, Some(connection)]) = slot.own.get()
            && connection.state().steal()
        {
            self.run_task(connection.clone());
        }
    }

    /// Hands what was noted to the run queue.
    pub(crate) fn announce_noted(self: &Arc<Self>, slot: &Arc<Slot>) {
        for task in slot.noted() {
            self.enqueue(task);
        }
    }

    pub(crate) fn wake_monitor(&self) {
        if !self.monitor_awake.load(Ordering::SeqCst)
            && !self.monitor_awake.swap(true, Ordering::SeqCst)
            && let Some(monitor) = &lock(&self.threads).monitor
        {
            monitor.thread().unpark();
        }
    }

    pub(crate) fn running(&self, which: impl Fn(&Running) -> bool) -> Vec<(Arc<Worker>, Running)> {
        let threads = lock(&self.threads);
        let running = |worker: &Arc<Worker>| {
            let work = lock(&worker.work);
            work.running.as_ref().filter(|running| which(running)).map(|running| (worker.clone(), running.clone()))
        };
        threads.workers.values().filter_map(running).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is dropped when it is given up takes a lock.
    struct Locks {
        state: RunState,
        lock: Mutex<usize>,
    }

    impl Task for Locks {
        fn state(&self) -> &RunState {
            &self.state
        }

        fn run(self: Arc<Self>) {}

        fn abandon(self: Arc<Self>) {
            *lock(&self.lock) += 1;
        }
    }

    #[test]
    fn who_wakes_a_task_that_is_given_up_may_hold_what_that_locks() {
        let workers = Workers::start(Options {
            bounds: Bounds { seats: 1, open: 1, queued: 1 },
            queue_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_secs(1),
            stack: 1 << 20,
            around: Box::new(|work| work()),
            on_tick: Box::new(|| ()),
        });
        let workers = workers.expect("the system has a thread");
        let locks = Arc::new(Locks { state: RunState::idle(), lock: Mutex::default() });
        let task: Arc<dyn Task> = locks.clone();
        workers.closed.store(true, Ordering::SeqCst);
        let held = lock(&locks.lock);
        workers.notify(&task);
        drop(held);
        workers.close();
        assert_eq!(*lock(&locks.lock), 1);
        workers.notify(&task);
        assert_eq!(*lock(&locks.lock), 2, "nobody polls any more");
    }
}
