//! Whom and what `Seats` chooses, where the order is the rule: no second thread is needed, each worker's steps are made in turn.

use std::sync::Arc;

use crate::explore;
use crate::lanes::{Held, Lane};
use crate::seats::{Bounds, Call, Done, Member, Pace, Role, Seats, Step};

struct Worker {
    member: Arc<Member>,
    role: Role,
}

impl Worker {
    fn new() -> Self {
        Self { member: Member::new(Role::Seated), role: Role::Seated }
    }

    fn next(&mut self, seats: &Seats<u8, u8>, done: Done<u8>, overdue: bool) -> (Step<u8, u8>, Call) {
        seats.next(&self.member, &mut self.role, done, Pace { overdue, ..Pace::default() })
    }

    fn is(&self, call: &Call) -> bool {
        matches!(call, Call::Member(member) if Arc::ptr_eq(member, &self.member))
    }
}

fn request(seats: &Seats<u8, u8>, request: u8) -> Call {
    seats.push_request(request, &Lane::default(), false).expect("the queue has room")
}

fn ended() -> Done<u8> {
    Done::Request(Held::Unknown)
}

/// Rule 11.
#[test]
fn the_worker_that_parked_last_is_called_first() {
    explore(|| {
        let seats = Seats::new(Bounds { seats: 3, open: 8, queued: 8 });
        let (mut poller, mut first, mut last) = (Worker::new(), Worker::new(), Worker::new());
        assert!(matches!(seats.first(), Call::Start(Role::Seated)));
        assert!(matches!(poller.next(&seats, Done::Arrived, false), (Step::React { wait: true }, Call::Nobody)));
        for (id, worker) in [(1, &mut first), (2, &mut last)] {
            assert!(matches!(request(&seats, id), Call::Start(Role::Seated)));
            assert!(matches!(worker.next(&seats, Done::Arrived, false), (Step::Request(run, _), _) if run == id));
        }
        for worker in [&mut first, &mut last] {
            assert!(matches!(worker.next(&seats, ended(), false), (Step::Park, Call::Nobody)));
        }
        assert!(last.is(&request(&seats, 3)), "not the one whose stack is warm");
        assert!(matches!(request(&seats, 4), Call::Nobody), "one at a time");
        let (step, call) = last.next(&seats, Done::Arrived, false);
        assert!(matches!(step, Step::Request(3, _)), "{step:?}");
        assert!(first.is(&call), "{call:?}");
    });
}

/// Rule 5: a worker that is overdue looks at the reactor before anything else, without waiting, unless another is there; what it
/// finds goes to the back of the queue.
#[test]
fn an_overdue_worker_polls_the_reactor_before_what_is_queued() {
    explore(|| {
        let seats = Seats::new(Bounds { seats: 2, open: 8, queued: 8 });
        let (mut busy, mut other) = (Worker::new(), Worker::new());
        assert!(matches!(seats.first(), Call::Start(_)));
        for task in [1, 2, 3] {
            assert!(matches!(seats.push(task, true), Ok(Call::Nobody)));
        }
        assert!(matches!(busy.next(&seats, Done::Arrived, false), (Step::Poll(1), Call::Start(_))));
        let (step, _) = busy.next(&seats, Done::Polled, true);
        assert!(matches!(step, Step::React { wait: false }), "{step:?}");
        // The other arrives while the first is there.
        let (step, _) = other.next(&seats, Done::Arrived, true);
        assert!(matches!(step, Step::Poll(2)), "{step:?}");
        for expected in [3, 4] {
            let done = if expected == 3 { Done::Reacted(vec![4]) } else { Done::Polled };
            let (step, _) = busy.next(&seats, done, false);
            assert!(matches!(step, Step::Poll(task) if task == expected), "{step:?}");
        }
    });
}

/// Rules 4 and 6: polls that follow each other without end do not keep those out whose wait is over.
#[test]
fn a_request_that_returns_does_not_wait_for_the_end_of_polls() {
    explore(|| {
        let seats = Seats::new(Bounds { seats: 1, open: 8, queued: 8 });
        let mut workers = [Worker::new(), Worker::new(), Worker::new()];
        assert!(matches!(seats.first(), Call::Start(_)));
        for id in 1..=3 {
            assert!(matches!(request(&seats, id), Call::Nobody));
        }
        for (index, worker) in workers.iter_mut().enumerate() {
            let (step, _) = worker.next(&seats, Done::Arrived, false);
            assert!(matches!(step, Step::Request(..)), "{step:?}");
            if index < 2 {
                assert!(matches!(seats.leave(&worker.member, true, Held::Unknown), Call::Start(_)));
            }
        }
        let [first, second, busy] = &mut workers;
        assert!(first.is(&seats.wake(&first.member)), "two may run for a seat");
        assert!(matches!(seats.wake(&second.member), Call::Nobody), "and no third");
        for task in 1..=3 {
            assert!(matches!(seats.push(task, true), Ok(Call::Nobody)));
        }
        assert!(matches!(busy.next(&seats, ended(), false), (Step::Poll(1), Call::Nobody)));
        let (step, call) = busy.next(&seats, Done::Polled, false);
        assert!(matches!(step, Step::Poll(2)) && second.is(&call), "{step:?} {call:?}");
    });
}

/// After a request that was slow there may be many polls, and they must not wait for a slow one each.
#[test]
fn after_a_slow_request_polls_have_their_turn_for_as_long() {
    explore(|| {
        let seats = Seats::new(Bounds { seats: 1, open: 8, queued: 8 });
        let mut worker = Worker::new();
        assert!(matches!(seats.first(), Call::Start(_)));
        assert!(matches!(worker.next(&seats, Done::Arrived, false), (Step::React { wait: true }, _)));
        let mut done = Done::Reacted(Vec::new());
        let mut order = Vec::new();
        // The first tells how long they take.
        for id in [1, 2, 3] {
            let _ = request(&seats, id);
        }
        for task in [10, 11, 12, 13, 14] {
            assert!(seats.push(task, true).is_ok());
        }
        for _ in 0..8 {
            done = match worker.next(&seats, done, false).0 {
                Step::Poll(task) => {
                    order.push(task);
                    Done::Polled
                }
                Step::Request(request, _) => {
                    order.push(request);
                    Done::Request(Held::Sample(150_000))
                }
                step => panic!("{step:?}"),
            };
        }
        assert_eq!(order, [10, 1, 11, 2, 12, 13, 14, 3]);
    });
}

/// Rules 4 and 6: who returns does not wait behind something new that has to wait for polls.
#[test]
fn while_what_is_new_waits_for_polls_what_returns_goes_on() {
    explore(|| {
        let seats = Seats::new(Bounds { seats: 1, open: 8, queued: 8 });
        let (mut waits, mut busy) = (Worker::new(), Worker::new());
        assert!(matches!(seats.first(), Call::Start(_)));
        let _ = request(&seats, 1);
        assert!(matches!(waits.next(&seats, Done::Arrived, false), (Step::Request(1, _), _)));
        for id in [2, 3] {
            let _ = request(&seats, id);
        }
        for task in [10, 11, 12, 13] {
            assert!(seats.push(task, true).is_ok());
        }
        assert!(matches!(seats.leave(&waits.member, true, Held::Sample(150_000)), Call::Start(_)));
        let mut steps = vec![busy.next(&seats, Done::Arrived, false).0, busy.next(&seats, Done::Polled, false).0];
        steps.push(busy.next(&seats, ended(), false).0);
        // The second time it is the turn of what is new.
        for _ in 0..2 {
            assert!(waits.is(&seats.wake(&waits.member)));
            waits.member.take_woken();
            assert!(matches!(seats.leave(&waits.member, true, Held::Unknown), Call::Nobody));
        }
        steps.extend((0..3).map(|_| busy.next(&seats, Done::Polled, false).0));
        let order = steps.into_iter().map(|step| match step {
            Step::Poll(task) | Step::Request(task, _) => task,
            step => panic!("{step:?}"),
        });
        assert_eq!(order.collect::<Vec<_>>(), [10, 2, 11, 12, 13, 3]);
    });
}
