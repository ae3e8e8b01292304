//! The worker loop of `workers.rs` in small: real `Seats`, loom threads, and a reactor that is a flag and a condition variable.

use std::sync::Arc;

use loom::sync::Condvar;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};

use crate::explore;
use crate::lanes::{Held, Lane};
use crate::parker::Parker;
use crate::seats::{Bounds, Call, Done, Member, Pace, Role, Seats, Step};
use crate::sync::{Mutex, lock};

type Job = Box<dyn FnOnce(&Arc<Pool>, &Arc<Member>) + Send>;

struct Pool {
    seats: Seats<Job, Job>,
    woken: Mutex<bool>,
    wake: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    running: AtomicUsize,
}

impl Pool {
    fn start(seats: usize) -> Arc<Self> {
        let pool = Arc::new(Self {
            seats: Seats::new(Bounds { seats, open: 8, queued: 8 }),
            woken: Mutex::new(false),
            wake: Condvar::new(),
            threads: Mutex::new(Vec::new()),
            running: AtomicUsize::new(0),
        });
        pool.act(pool.seats.first());
        pool
    }

    fn act(self: &Arc<Self>, call: Call) {
        match call {
            Call::Nobody => {}
            Call::Member(member) => member.parker().unpark(),
            Call::Poller => self.wake_poller(),
            Call::Start(role) => {
                let pool = self.clone();
                let thread = thread::spawn(move || pool.work(role));
                lock(&self.threads).push(thread);
            }
        }
    }

    fn wake_poller(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_all();
    }

    fn work(self: &Arc<Self>, mut role: Role) {
        let me = Member::new(role);
        let mut done = Done::Arrived;
        loop {
            let (step, call) = self.seats.next(&me, &mut role, done, Pace::default());
            self.act(call);
            done = match step {
                Step::Poll(job) => {
                    job(self, &me);
                    Done::Polled
                }
                Step::Request(job, _) => {
                    job(self, &me);
                    Done::Request(Held::Unknown)
                }
                Step::Send => unreachable!("nothing is held"),
                Step::Rest => {
                    thread::yield_now();
                    Done::Polled
                }
                Step::React { wait } => {
                    let mut woken = lock(&self.woken);
                    while wait && !*woken {
                        woken = self.wake.wait(woken).expect("no panic");
                    }
                    *woken = false;
                    Done::Reacted(Vec::new())
                }
                Step::Park => {
                    me.parker().park();
                    Done::Arrived
                }
                Step::Exit => return,
            };
        }
    }

    fn push(self: &Arc<Self>, job: impl FnOnce(&Arc<Self>, &Arc<Member>) + Send + 'static) {
        if let Ok(call) = self.seats.push(Box::new(job), false) {
            self.act(call);
        }
    }

    fn push_request(self: &Arc<Self>, from_loop: bool, job: impl FnOnce(&Arc<Self>, &Arc<Member>) + Send + 'static) {
        let call = self
            .seats
            .push_request(Box::new(job), &Lane::default(), from_loop)
            .unwrap_or_else(|_| panic!("the queue has room"));
        self.act(call);
    }

    /// A wait inside a request.
    fn leave_and_come_back(self: &Arc<Self>, me: &Arc<Member>) {
        self.act(self.seats.leave(me, false, Held::Unknown));
        self.act(self.seats.come_back(me));
        me.parker().park();
    }

    fn end(self: &Arc<Self>) {
        let (parked, tasks, requests) = self.seats.close();
        drop((tasks, requests));
        for member in parked {
            member.parker().unpark();
        }
        self.wake_poller();
        loop {
            let threads = std::mem::take(&mut *lock(&self.threads));
            if threads.is_empty() {
                return;
            }
            for thread in threads {
                thread.join().expect("no panic");
            }
        }
    }
}

/// Rule 1 and parking against the last push: a task pushed from outside is run, whether the worker is on its way into the
/// reactor, asleep there, or on its way out.
#[test]
fn a_push_from_outside_is_always_seen() {
    explore(|| {
        let pool = Pool::start(1);
        let done = Arc::new(Parker::new());
        let ran = done.clone();
        pool.push(move |_, _| ran.unpark());
        done.park();
        pool.end();
    });
}

#[test]
fn two_pushes_from_outside_are_both_seen() {
    explore(|| {
        let pool = Pool::start(1);
        let done = Arc::new(Parker::new());
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (done, count) = (done.clone(), count.clone());
            pool.push(move |_, _| {
                if count.fetch_add(1, Ordering::SeqCst) == 1 {
                    done.unpark();
                }
            });
        }
        done.park();
        pool.end();
    });
}

/// Rule 2: a worker that starts one request and leaves another in the queue has called somebody for it. The first request ends
/// only when the second has run.
#[test]
fn no_core_is_idle_while_a_request_is_queued() {
    explore(|| {
        let pool = Pool::start(2);
        let done = Arc::new(Parker::new());
        let ended = done.clone();
        pool.push(move |pool, _| {
            let gate = Arc::new((Mutex::new(false), Condvar::new()));
            let open = gate.clone();
            pool.push_request(true, move |_, _| {
                let mut opened = lock(&gate.0);
                while !*opened {
                    opened = gate.1.wait(opened).expect("no panic");
                }
                ended.unpark();
            });
            pool.push_request(true, move |_, _| {
                *lock(&open.0) = true;
                open.1.notify_all();
            });
        });
        done.park();
        pool.end();
    });
}

/// Giving up a seat leaves somebody behind who sees the queue: the request waits for a task that only another worker can run.
#[test]
fn a_request_that_waits_leaves_its_seat_to_another() {
    explore(|| {
        let pool = Pool::start(1);
        let done = Arc::new(Parker::new());
        let ended = done.clone();
        pool.push_request(false, move |pool, me| {
            pool.act(pool.seats.leave(me, false, Held::Unknown));
            let waiting = Arc::new(Parker::new());
            let wake = waiting.clone();
            pool.push(move |_, _| wake.unpark());
            waiting.park();
            pool.act(pool.seats.come_back(me));
            me.parker().park();
            ended.unpark();
        });
        done.park();
        pool.end();
    });
}

/// A wake-up on a request's way into a wait, or during it, or for nothing, gives the seat back once and is never lost.
#[test]
fn a_request_that_is_woken_as_it_leaves_its_seat_comes_back() {
    explore(|| {
        let pool = Pool::start(1);
        let done = Arc::new(Parker::new());
        let ended = done.clone();
        pool.push_request(false, move |pool, me| {
            let (waker, member) = (pool.clone(), me.clone());
            let thread = thread::spawn(move || waker.act(waker.seats.wake(&member)));
            // What `Left` does.
            pool.act(pool.seats.leave(me, true, Held::Unknown));
            if me.is_woken() {
                pool.act(pool.seats.come_back(me));
            }
            me.parker().park();
            assert!(me.take_woken(), "seated before it was woken");
            // Nobody is left who would unpark it: what follows would hang if a seat were lost.
            thread.join().expect("no panic");
            pool.leave_and_come_back(me);
            ended.unpark();
        });
        done.park();
        pool.end();
    });
}

/// Rule 4: of those that come back from a wait at most 2 × seats run at once, and all of them end.
#[test]
fn a_mass_resume_runs_two_for_each_seat_and_ends() {
    explore(|| {
        let pool = Pool::start(1);
        let done = Arc::new(Parker::new());
        let left = Arc::new(AtomicUsize::new(2));
        for _ in 0..2 {
            let (done, left) = (done.clone(), left.clone());
            pool.push_request(false, move |pool, me| {
                pool.leave_and_come_back(me);
                assert!(pool.running.fetch_add(1, Ordering::SeqCst) < 2, "more than two for a seat");
                pool.running.fetch_sub(1, Ordering::SeqCst);
                if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                    done.unpark();
                }
            });
        }
        done.park();
        pool.end();
    });
}
