//! One connection as the reactor and the workers see it: a `RunState`, and a `Readiness` over a socket whose edges come once.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::explore;
use crate::readiness::Readiness;
use crate::run_state::RunState;
use crate::sync::{AtomicBool, Mutex, lock};

struct Connection {
    state: RunState,
    ready: Readiness,
    /// Bytes in the kernel's buffer, and those that runs have taken.
    arrived: AtomicUsize,
    taken: AtomicUsize,
    running: AtomicBool,
    queue: Mutex<VecDeque<()>>,
}

impl Connection {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: RunState::idle(),
            ready: Readiness::new(false),
            arrived: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            queue: Mutex::new(VecDeque::new()),
        })
    }

    /// A byte arrives, and the poller hears of it.
    fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.ready.set();
        if self.state.notify() {
            lock(&self.queue).push_back(());
        }
    }

    fn run(&self) {
        assert!(!self.running.swap(true, Ordering::SeqCst), "two runs at once");
        while self.ready.claim() {
            let bytes = self.arrived.swap(0, Ordering::SeqCst);
            if bytes > 0 {
                self.taken.fetch_add(bytes, Ordering::SeqCst);
                self.ready.set();
            }
        }
        assert!(self.running.swap(false, Ordering::SeqCst));
        if self.state.finish() {
            lock(&self.queue).push_back(());
        }
    }

    /// What a worker does with the queue until it is empty.
    fn work(&self) {
        loop {
            let entry = lock(&self.queue).pop_front();
            if entry.is_none() {
                return;
            }
            if self.state.start() {
                self.run();
            }
        }
    }
}

/// Rule 9 and the four states: whoever reads, in whatever order, every byte that arrived is read.
#[test]
fn no_edge_is_lost() {
    explore(|| {
        let connection = Connection::new();
        let threads = [0, 1].map(|_| {
            let connection = connection.clone();
            thread::spawn(move || {
                connection.arrive();
                connection.work();
            })
        });
        for thread in threads {
            thread.join().expect("no panic");
        }
        connection.work();
        assert_eq!(connection.taken.load(Ordering::SeqCst), 2);
    });
}

/// Rule 8: a waiting request polls its own connection out of turn, while a worker takes the queue.
#[test]
fn a_stolen_run_leaves_nothing_unread_and_never_runs_twice_at_once() {
    explore(|| {
        let connection = Connection::new();
        let other = connection.clone();
        let worker = thread::spawn(move || {
            other.arrive();
            other.work();
        });
        connection.arrive();
        if connection.state.steal() {
            connection.run();
        }
        connection.work();
        worker.join().expect("no panic");
        connection.work();
        assert_eq!(connection.taken.load(Ordering::SeqCst), 2);
    });
}
