//! Who may run, and what next: the run queue and the seats, under one lock. This file only decides; `workers.rs` acts (runs
//! tasks, polls the reactor, starts and wakes threads), and `tests/models` explores it with loom.
//!
//! A *seat* is the right to be running; there are as many as cores. A seated worker runs tasks, or polls the reactor, or parks.
//! A worker whose request waits gives its seat up (`leave`); whoever ends the wait asks for one on its behalf (`wake`), so that
//! its thread sleeps until it may run. Two kinds of task: *polls* are ours and short, *requests* run handlers and may take any
//! time. The *relief* is a worker without a seat that the monitor sends when every seat is stuck in a request: it takes polls only, and between
//! two looks at the reactor it rests, since each look interrupts what computes.
//!
//! The rule that everything here serves: no lost wake-up. Whoever adds work from outside of the worker loop is told whom to
//! wake; the loop itself need not be, because it looks again before it parks.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::lanes::{Held, Kind, Lane, Lanes, Next, Room, Turn};
use crate::parker::Parker;
use crate::sync::{AtomicBool, AtomicU8, AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// Bounds that never change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Workers that may run at once; at least 1.
    pub(crate) seats: usize,
    /// Requests that may be started and not yet ended, running or waiting.
    pub(crate) open: usize,
    /// Requests that may wait to be started.
    pub(crate) queued: usize,
}

impl Bounds {
    /// Requests that may run at once without waiting: those that come back from a wait may exceed the seats up to this.
    fn running(&self) -> usize {
        2 * self.seats
    }

    /// Requests of a lane that had to give way, beside which none is started: so many that what is short still is, beside them; so few that they
    /// end before their deadlines.
    fn long(&self) -> usize {
        16 * self.seats
    }

    /// Every open request may hold a thread that waits; beside them the seats must still find a thread each, and the relief one.
    fn threads(&self) -> usize {
        self.open + self.seats + 1
    }
}

/// One worker thread as the scheduler sees it.
#[derive(Debug)]
pub(crate) struct Member {
    /// Unparked by whoever was told `Call::Member`.
    parker: Parker,
    place: AtomicU8,
    /// Of the request that it runs: its lane, and whether it goes on after it had to give way. As `place`, only used under the lock.
    lane: AtomicU64,
    is_long: AtomicBool,
    /// What its request waits for has happened, or may have. Set by wakers, cleared by the member's own thread.
    woken: AtomicBool,
}

// Where a member is. Only read and written under the lock of `State`, hence Relaxed.
const LOOP: u8 = 0;
const REQUEST: u8 = 1;
/// Runs a request that waits until it is woken.
const WAITING: u8 = 2;
/// Runs a request, but the monitor has given its seat away because the thread blocked without saying so.
const DISPLACED: u8 = 3;
/// Parked and called as the relief.
const RELIEF: u8 = 4;
/// Runs a request in a wait of another kind, which only its own thread ends.
const BLOCKED: u8 = 5;
/// Its wait is over, or it had to give way, and it is queued for a seat.
const RETURNING: u8 = 6;

impl Member {
    /// Must be made on the worker's own thread.
    pub(crate) fn new(role: Role) -> Arc<Self> {
        let place = if role == Role::Relief { RELIEF } else { LOOP };
        Arc::new(Self {
            parker: Parker::new(),
            place: AtomicU8::new(place),
            lane: AtomicU64::new(0),
            is_long: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        })
    }

    pub(crate) fn parker(&self) -> &Parker {
        &self.parker
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// Whether it was woken since the last time; forgets it.
    pub(crate) fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    fn place(&self) -> u8 {
        self.place.load(Ordering::Relaxed)
    }

    fn lane(&self) -> u64 {
        self.lane.load(Ordering::Relaxed)
    }

    fn kind(&self) -> Kind {
        if self.is_long.load(Ordering::Relaxed) { Kind::Long } else { Kind::Short }
    }

    /// It has a seat for a request, which is of that lane and goes on like that.
    fn run(&self, lane: u64, kind: Kind) {
        self.lane.store(lane, Ordering::Relaxed);
        self.is_long.store(kind == Kind::Long, Ordering::Relaxed);
        self.go(REQUEST);
    }

    fn go(&self, place: u8) {
        self.place.store(place, Ordering::Relaxed);
    }
}

/// In what capacity a worker is in the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Seated,
    Relief,
}

/// What a worker has just done when it asks for the next step.
pub(crate) enum Done<T> {
    /// It was started, or called while parked.
    Arrived,
    Polled,
    /// It has ended, and held its seat for so long at last.
    Request(Held),
    /// It polled the reactor, and this is what became runnable.
    Reacted(Vec<T>),
}

/// What else the loop knows when it asks for the next step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// The reactor has not been polled for long.
    pub(crate) overdue: bool,
    /// The worker has something to send before it polls the reactor or parks.
    pub(crate) holds: bool,
}

/// What a worker does next.
#[derive(Debug)]
pub(crate) enum Step<T, R> {
    Poll(T),
    Request(R, Turn),
    /// Sends what it holds, then asks again with `Done::Polled`: there is no task that it may do.
    Send,
    /// Polls the reactor; without waiting if there is other work.
    React {
        wait: bool,
    },
    /// Sleeps for a tick, then asks again with `Done::Polled`.
    Rest,
    /// Parks on its own parker, then asks again with `Done::Arrived`.
    Park,
    Exit,
}

/// Whom the caller must wake or start, after it has released the lock.
#[derive(Debug)]
#[must_use]
pub(crate) enum Call {
    Nobody,
    Member(Arc<Member>),
    /// A new thread; if that fails, the caller says so with `not_started`.
    Start(Role),
    /// The worker that sleeps in the reactor.
    Poller,
}

#[derive(Debug, PartialEq, Eq)]
enum Polling {
    Nobody,
    Somebody(Role),
    /// Somebody, who has been woken and will look at the queue.
    Woken,
}

/// What the monitor needs to know, read in one go.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// Grows with every step any worker takes.
    pub(crate) steps: u64,
    /// No request runs and nothing is queued: the monitor may sleep.
    pub(crate) idle: bool,
    /// There is something that nobody is about to do: work without a worker, or a reactor without a poller.
    pub(crate) unattended: bool,
}

pub(crate) struct Seats<T, R> {
    bounds: Bounds,
    state: Mutex<State<T, R>>,
}

struct State<T, R> {
    polls: VecDeque<T>,
    /// Requests that wait to be started, and workers whose wait is over.
    requests: Lanes<R, Arc<Member>>,
    /// Last in, first out: warm stacks, warm caches, and wasmtime's pool shards are at home on threads.
    parked: Vec<Arc<Member>>,
    seated: usize,
    running: usize,
    open: usize,
    /// Of the open requests, those that wait.
    waiting: usize,
    threads: usize,
    polling: Polling,
    /// Polls that go before the next request to be started, if there are so many: after one that was slow there may be.
    polls_due: u64,
    /// A worker has been called and has not looked at the queue yet; never more than one at a time.
    arriving: bool,
    relief: bool,
    /// The relief has polled the reactor since it rested.
    is_tired: bool,
    closed: bool,
    steps: u64,
}

impl<T, R> State<T, R> {
    /// The request of `member` has a seat again.
    fn seat(&mut self, member: &Member, kind: Kind) {
        self.seated += 1;
        self.running += 1;
        member.run(member.lane(), kind);
    }

    /// Whoever comes back next goes on, if it is the turn of somebody who does.
    fn resume(&mut self, room: Room) -> Call {
        let Some((member, kind)) = self.requests.resume(room) else { return Call::Nobody };
        self.seat(&member, kind);
        Call::Member(member)
    }

    fn wake_poller(&mut self) -> Call {
        self.polling = Polling::Woken;
        Call::Poller
    }
}

impl<T, R> Seats<T, R> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State {
            polls: VecDeque::new(),
            requests: Lanes::new(bounds.long()),
            parked: Vec::new(),
            seated: 0,
            running: 0,
            open: 0,
            waiting: 0,
            threads: 0,
            polling: Polling::Nobody,
            polls_due: 0,
            arriving: false,
            relief: false,
            is_tired: false,
            closed: false,
            steps: 0,
        };
        Self { bounds, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State<T, R>> {
        let s = lock(&self.state);
        // Who runs a request has a seat, and what waits has been started; workers without a request have the other seats, and what comes back or
        // was displaced has neither.
        debug_assert!(
            s.running <= s.seated && s.running + s.waiting <= s.open,
            "{} {} {} {}",
            s.seated,
            s.running,
            s.waiting,
            s.open
        );
        s
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The heart of the loop: accounts for what was done, then chooses.
    pub(crate) fn next(&self, me: &Arc<Member>, role: &mut Role, done: Done<T>, pace: Pace) -> (Step<T, R>, Call) {
        let mut s = self.state();
        s.steps += 1;
        if s.closed {
            s.threads -= 1;
            return (Step::Exit, Call::Nobody);
        }
        let polled = matches!(done, Done::Polled);
        match done {
            Done::Polled => {}
            Done::Reacted(tasks) => {
                s.polling = Polling::Nobody;
                s.polls.extend(tasks);
            }
            Done::Request(held) => {
                s.open -= 1;
                if me.place() == DISPLACED {
                    // Its seat went to another while it was blocked: it is as if it came from a park, uncalled.
                    s.seated += 1;
                } else {
                    s.running -= 1;
                    s.requests.pay(me.lane(), me.kind(), held);
                }
                s.requests.end(me.lane());
                me.go(LOOP);
            }
            Done::Arrived => {
                *role = if me.place() == RELIEF { Role::Relief } else { Role::Seated };
                if *role == Role::Seated {
                    s.arriving = false;
                }
                me.go(LOOP);
            }
        }
        self.settle(&mut s, role);
        if let Some(step) = self.choose(&mut s, me, role, pace, polled) {
            let is_slow = matches!(&step, Step::Request(_, turn) if turn.is_slow());
            let unwatched = is_slow && s.polling == Polling::Nobody;
            // Polls may follow each other for ever: those that return need not wait for the end of them.
            let beside = match step {
                Step::Poll(_) if polled => self.seat_beside_polls(&mut s),
                _ => Call::Nobody,
            };
            let call = match (beside, &step) {
                // The poller need not be woken by itself, for work that it may not do.
                (Call::Nobody, Step::React { .. }) if self.has_work(&s) => self.call_one(&mut s),
                (Call::Nobody, Step::React { .. }) => Call::Nobody,
                (Call::Nobody, _) if unwatched || self.has_work(&s) => self.call_or_wake(&mut s),
                (call, _) => call,
            };
            return (step, call);
        }
        // Nothing for this worker: it parks, and its seat goes to whoever comes back from a wait, or is free.
        let call = if *role == Role::Relief {
            s.relief = false;
            Call::Nobody
        } else {
            self.hand_over(&mut s)
        };
        // What it may not do itself (it had more than a seat's share) the poller may.
        let call = match call {
            Call::Nobody if self.has_work(&s) => self.call_or_wake(&mut s),
            call => call,
        };
        s.parked.push(me.clone());
        (Step::Park, call)
    }

    /// Brings the role in line with the number of seats.
    fn settle(&self, s: &mut State<T, R>, role: &mut Role) {
        if *role == Role::Relief && s.seated < self.bounds.seats {
            *role = Role::Seated;
            s.relief = false;
            s.seated += 1;
        } else if *role == Role::Seated && s.seated > self.bounds.seats && !s.relief && self.turn(s).is_none() {
            *role = Role::Relief;
            s.relief = true;
            s.seated -= 1;
        }
    }

    /// Polls and requests take turns: a poll is short, frees memory, answers clients and wakes guests; a request that a poll has
    /// just brought is best run while what it touches is in the cache. After a request that was expected to be slow polls have their turn for
    /// as long, before what is new and not before what returns. `polled`: the last step was a poll.
    fn choose(
        &self,
        s: &mut State<T, R>,
        me: &Arc<Member>,
        role: &Role,
        pace: Pace,
        polled: bool,
    ) -> Option<Step<T, R>> {
        if pace.overdue && s.polling == Polling::Nobody {
            s.polling = Polling::Somebody(*role);
            return Some(Step::React { wait: false });
        }
        let may_start = *role == Role::Seated && self.startable(s);
        if !(polled && may_start && s.polls_due == 0)
            && let Some(task) = s.polls.pop_front()
        {
            s.polls_due = s.polls_due.saturating_sub(1);
            return Some(Step::Poll(task));
        }
        if may_start && let Some((request, turn)) = s.requests.start(self.room(s)) {
            s.running += 1;
            s.open += 1;
            s.polls_due = turn.polls();
            me.run(turn.lane, Kind::Short);
            return Some(Step::Request(request, turn));
        }
        if pace.holds {
            return Some(Step::Send);
        }
        let may_poll = *role == Role::Relief || !self.returnable(s);
        if may_poll && s.polling == Polling::Nobody {
            if std::mem::take(&mut s.is_tired) && *role == Role::Relief {
                return Some(Step::Rest);
            }
            s.is_tired = *role == Role::Relief;
            s.polling = Polling::Somebody(*role);
            return Some(Step::React { wait: true });
        }
        None
    }

    /// Whose turn it is to have a seat: at most so many run at once.
    fn turn(&self, s: &State<T, R>) -> Option<Next> {
        if s.running < self.bounds.running() { s.requests.next(self.room(s)) } else { None }
    }

    fn room(&self, s: &State<T, R>) -> Room {
        match s.open {
            open if open >= self.bounds.open => Room::Nothing,
            open if open >= self.bounds.open - self.bounds.open / 4 => Room::Kept,
            _ => Room::Anything,
        }
    }

    fn startable(&self, s: &State<T, R>) -> bool {
        self.turn(s) == Some(Next::New)
    }

    fn returnable(&self, s: &State<T, R>) -> bool {
        matches!(self.turn(s), Some(Next::Back(_)))
    }

    /// Whoever comes back next goes on; the caller has seen that it is the turn of somebody who does.
    fn seat_next(&self, s: &mut State<T, R>) -> Call {
        let room = self.room(s);
        s.resume(room)
    }

    /// Whoever comes back next goes on if it is the turn of somebody who does, or of something new that has to wait for polls.
    fn seat_beside_polls(&self, s: &mut State<T, R>) -> Call {
        let waits_for_polls = s.polls_due > 0 && !s.polls.is_empty();
        let room = if waits_for_polls { Room::Nothing } else { self.room(s) };
        if s.running < self.bounds.running() { s.resume(room) } else { Call::Nobody }
    }

    fn has_work(&self, s: &State<T, R>) -> bool {
        !s.polls.is_empty() || self.turn(s).is_some()
    }

    /// Calls one more worker to a free seat, unless one is already on its way.
    fn call_one(&self, s: &mut State<T, R>) -> Call {
        if s.seated >= self.bounds.seats || s.arriving {
            return Call::Nobody;
        }
        if self.returnable(s) {
            return self.seat_next(s);
        }
        s.seated += 1;
        s.arriving = true;
        self.send(s, Role::Seated).unwrap_or_else(|| {
            s.arriving = false;
            s.seated -= 1;
            Call::Nobody
        })
    }

    /// For work that a worker leaves: one more worker, or else the poller, unless that is a relief, which could do no more than
    /// the worker that is at it.
    fn call_or_wake(&self, s: &mut State<T, R>) -> Call {
        match self.call_one(s) {
            Call::Nobody if s.polling == Polling::Somebody(Role::Seated) => s.wake_poller(),
            call => call,
        }
    }

    /// A parked worker or a new thread. None: there may be no more threads.
    fn send(&self, s: &mut State<T, R>, role: Role) -> Option<Call> {
        if let Some(member) = s.parked.pop() {
            member.go(if role == Role::Relief { RELIEF } else { LOOP });
            return Some(Call::Member(member));
        }
        if s.threads >= self.bounds.threads() {
            return None;
        }
        s.threads += 1;
        Some(Call::Start(role))
    }

    /// The caller stops using its seat: it goes to a worker that comes back, or to one that will look after what is left.
    fn hand_over(&self, s: &mut State<T, R>) -> Call {
        s.seated -= 1;
        if self.returnable(s) {
            return self.seat_next(s);
        }
        if self.has_work(s) {
            self.call_or_wake(s)
        } else if s.polling == Polling::Nobody {
            self.call_one(s)
        } else {
            Call::Nobody
        }
    }

    /// Adds a task that polls something, or gives it back, since nobody will run it. `from_loop`: the caller is in the worker loop and will look
    /// at the queue again.
    pub(crate) fn push(&self, task: T, from_loop: bool) -> Result<Call, T> {
        let mut s = self.state();
        if s.closed {
            return Err(task);
        }
        s.polls.push_back(task);
        Ok(if from_loop { Call::Nobody } else { self.announce(&mut s) })
    }

    /// Requests that wait to be started.
    pub(crate) fn queued(&self) -> usize {
        self.state().requests.queued()
    }

    /// Those of one lane.
    pub(crate) fn queued_in(&self, lane: u64) -> usize {
        self.state().requests.queued_in(lane)
    }

    /// Adds a request to start, or gives it back when the queue is full.
    pub(crate) fn push_request(&self, request: R, lane: &Lane, from_loop: bool) -> Result<Call, R> {
        let mut s = self.state();
        if s.closed || s.requests.queued() >= self.bounds.queued {
            return Err(request);
        }
        s.requests.push(lane, request)?;
        Ok(if from_loop { Call::Nobody } else { self.announce(&mut s) })
    }

    /// Work came from outside: a worker for a free seat, else the sleeping poller. If all seats are busy with requests, whoever
    /// ends first looks, or the monitor sends the relief.
    fn announce(&self, s: &mut State<T, R>) -> Call {
        if s.arriving {
            return Call::Nobody;
        }
        match self.call_one(s) {
            Call::Nobody if matches!(s.polling, Polling::Somebody(_)) => s.wake_poller(),
            call => call,
        }
    }

    /// The request that `me` runs is going to wait: gives up its seat, which it has held for so long. `until_woken`: `wake` may ask for it back; otherwise only
    /// `come_back` does. Either way the thread parks on its own parker, and has the seat when it is unparked. A thread that was woken
    /// before it left must come back by itself.
    pub(crate) fn leave(&self, me: &Arc<Member>, until_woken: bool, held: Held) -> Call {
        let mut s = self.state();
        s.steps += 1;
        s.waiting += 1;
        let displaced = me.place() == DISPLACED;
        me.go(if until_woken { WAITING } else { BLOCKED });
        if displaced {
            return Call::Nobody;
        }
        s.running -= 1;
        s.requests.pay(me.lane(), me.kind(), held);
        self.hand_over(&mut s)
    }

    /// The request that `me` runs has computed for `held`: if others wait for a seat, it queues for one behind them, and the thread must park
    /// until it has it. None: it goes on.
    pub(crate) fn give_way(&self, me: &Arc<Member>, held: Held) -> Option<Call> {
        let mut s = self.state();
        if s.closed || me.place() != REQUEST || s.requests.next(self.room(&s)).is_none() {
            return None;
        }
        s.steps += 1;
        s.running -= 1;
        s.requests.pay(me.lane(), me.kind(), held);
        me.go(RETURNING);
        s.requests.come_back(me.lane(), me.clone(), Kind::Long);
        Some(self.hand_over(&mut s))
    }

    /// What the request of `member` waits for has happened, or may have. From any thread, at any time.
    pub(crate) fn wake(&self, member: &Arc<Member>) -> Call {
        if member.woken.swap(true, Ordering::SeqCst) {
            return Call::Nobody;
        }
        let mut s = self.state();
        if member.place() == WAITING { self.end_wait(&mut s, member) } else { Call::Nobody }
    }

    /// The wait of `me` is over, unless somebody else has ended it.
    pub(crate) fn come_back(&self, me: &Arc<Member>) -> Call {
        let mut s = self.state();
        if matches!(me.place(), WAITING | BLOCKED) { self.end_wait(&mut s, me) } else { Call::Nobody }
    }

    fn end_wait(&self, s: &mut State<T, R>, member: &Arc<Member>) -> Call {
        s.steps += 1;
        s.waiting -= 1;
        if s.closed {
            s.seat(member, Kind::Short);
            return Call::Member(member.clone());
        }
        member.go(RETURNING);
        s.requests.come_back(member.lane(), member.clone(), Kind::Short);
        match self.seat_beside_polls(s) {
            Call::Nobody if self.startable(s) => self.call_or_wake(s),
            call => call,
        }
    }

    /// Takes the seat from a worker whose thread blocked without saying so. Nobody is called; `relieve` or the next push does.
    pub(crate) fn displace(&self, member: &Arc<Member>) -> Call {
        let mut s = self.state();
        if member.place() != REQUEST {
            return Call::Nobody;
        }
        member.go(DISPLACED);
        s.running -= 1;
        self.hand_over(&mut s)
    }

    /// Sends a worker without a seat that takes polls only; at most one at a time.
    pub(crate) fn relieve(&self) -> Call {
        let mut s = self.state();
        if s.closed || s.relief {
            return Call::Nobody;
        }
        match self.call_one(&mut s) {
            Call::Nobody => {}
            call => return call,
        }
        s.relief = true;
        self.send(&mut s, Role::Relief).unwrap_or_else(|| {
            s.relief = false;
            Call::Nobody
        })
    }

    pub(crate) fn pulse(&self) -> Pulse {
        let s = self.state();
        let work = self.has_work(&s);
        Pulse {
            steps: s.steps,
            idle: s.open == s.waiting && s.requests.queued() == 0 && !work && s.polling != Polling::Nobody,
            unattended: !s.closed && (work || (s.polling == Polling::Nobody && !s.relief)),
        }
    }

    /// Requests that were started and have not ended.
    pub(crate) fn open(&self) -> usize {
        self.state().open
    }

    /// Takes out the queued requests that have waited too long, or in vain; to be dropped without the lock.
    pub(crate) fn expire(&self, expired: impl Fn(&R) -> bool) -> Vec<R> {
        let mut s = self.state();
        s.requests.expire(expired)
    }

    /// For the monitor, when no thread can be started: whether the reactor has no poller, and the caller is it now.
    pub(crate) fn try_polling(&self) -> bool {
        let mut s = self.state();
        // A worker that was called looks itself.
        let may = !s.closed && !s.arriving && !s.relief && s.polling == Polling::Nobody;
        if may {
            s.polling = Polling::Somebody(Role::Relief);
        }
        may
    }

    pub(crate) fn end_polling(&self) {
        self.state().polling = Polling::Nobody;
    }

    pub(crate) fn pop_poll(&self) -> Option<T> {
        self.state().polls.pop_front()
    }

    /// The thread that `Call::Start` asked for could not be had.
    pub(crate) fn not_started(&self, role: Role) {
        let mut s = self.state();
        s.threads -= 1;
        if role == Role::Relief {
            s.relief = false;
        } else {
            s.arriving = false;
            s.seated -= 1;
        }
    }

    /// A worker that was parked for long wants to end. False: it has been called meanwhile.
    pub(crate) fn retire(&self, me: &Arc<Member>) -> bool {
        let mut s = self.state();
        let Some(at) = s.parked.iter().position(|member| Arc::ptr_eq(member, me)) else { return false };
        s.parked.remove(at);
        s.threads -= 1;
        true
    }

    /// The first worker, which nobody calls.
    pub(crate) fn first(&self) -> Call {
        let mut s = self.state();
        self.call_one(&mut s)
    }

    /// Every worker exits at its next step. Returns those that are parked, to be woken (the poller must be woken too), and what
    /// was queued, to be dropped without the lock.
    pub(crate) fn close(&self) -> (Vec<Arc<Member>>, VecDeque<T>, Vec<R>) {
        let mut s = self.state();
        s.closed = true;
        let mut wake = std::mem::take(&mut s.parked);
        let (requests, returning) = s.requests.clear();
        returning.iter().for_each(|member| s.seat(member, Kind::Short));
        wake.extend(returning);
        (wake, std::mem::take(&mut s.polls), requests)
    }
}
