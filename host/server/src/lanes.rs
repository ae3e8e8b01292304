//! Requests that wait to be started: a queue for each lane, served in turn, so that the clients of one handler that is slow or sought after
//! take neither all workers nor the others' turns. Lives under the lock of `seats.rs`; only decides.
//!
//! A lane is there from its first request on, and forgotten when another is new and nothing of it is left.

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::time::Duration;

/// The bounds that a request shares with the others of its lane, such as all those of one handler; see
/// [`Handler::lane`](crate::Handler::lane). A bound that is new holds for the requests that come after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which lane it is.
    pub id: u64,
    /// Requests of the lane that may have been started and not ended, running or waiting; at least 1.
    pub in_flight: usize,
    /// Requests of the lane that may wait to be started; beyond it the client gets 503 at once.
    pub queue: usize,
    /// How long one may wait to be started; then its client gets 503. None: as long as the server says.
    pub queue_timeout: Option<Duration>,
}

impl Default for Lane {
    /// Without bounds of its own.
    fn default() -> Self {
        Self { id: 0, in_flight: usize::MAX, queue: usize::MAX, queue_timeout: None }
    }
}

pub(crate) struct Lanes<R> {
    lanes: HashMap<u64, Queue<R>>,
    /// Those that have a request which may be started, each once; the first is next.
    turns: VecDeque<u64>,
    queued: usize,
}

struct Queue<R> {
    requests: VecDeque<R>,
    in_flight: usize,
    started: usize,
    /// It is in `turns`.
    has_turn: bool,
}

impl<R> Queue<R> {
    fn may_start(&self) -> bool {
        !self.requests.is_empty() && self.started < self.in_flight
    }
}

impl<R> Lanes<R> {
    pub(crate) fn new() -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), queued: 0 }
    }

    /// Requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Whether there is a request that its lane lets start.
    pub(crate) fn may_start(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Adds a request, or gives it back if its lane has as many as may wait.
    pub(crate) fn push(&mut self, lane: &Lane, request: R) -> Result<(), R> {
        if !self.lanes.contains_key(&lane.id) {
            self.lanes.retain(|_, queue| queue.started > 0 || !queue.requests.is_empty());
        }
        let new = || Queue { requests: VecDeque::new(), in_flight: 1, started: 0, has_turn: false };
        let queue = self.lanes.entry(lane.id).or_insert_with(new);
        queue.in_flight = lane.in_flight.max(1);
        // One that can be started at once waits for a worker, and not for its lane.
        if queue.requests.len() >= lane.queue && queue.started + queue.requests.len() >= queue.in_flight {
            return Err(request);
        }
        queue.requests.push_back(request);
        self.queued += 1;
        self.give_turn(lane.id);
        Ok(())
    }

    /// The next request, which its lane counts from now on, and that lane.
    pub(crate) fn start(&mut self) -> Option<(R, u64)> {
        let id = self.turns.pop_front()?;
        let queue = self.lanes.get_mut(&id)?;
        queue.has_turn = false;
        let request = queue.requests.pop_front()?;
        queue.started += 1;
        self.queued -= 1;
        self.give_turn(id);
        Some((request, id))
    }

    /// A request of the lane has ended.
    pub(crate) fn end(&mut self, id: u64) {
        if let Some(queue) = self.lanes.get_mut(&id) {
            queue.started -= 1;
            self.give_turn(id);
        }
    }

    /// To the end of the line, if there is something to start and it is not in the line already.
    fn give_turn(&mut self, id: u64) {
        if let Some(queue) = self.lanes.get_mut(&id)
            && !queue.has_turn
            && queue.may_start()
        {
            queue.has_turn = true;
            self.turns.push_back(id);
        }
    }

    /// Takes out the requests for which `expired` holds.
    pub(crate) fn expire(&mut self, expired: impl Fn(&R) -> bool) -> Vec<R> {
        let mut out = Vec::new();
        for queue in self.lanes.values_mut() {
            if queue.requests.iter().any(&expired) {
                let (gone, left): (VecDeque<_>, VecDeque<_>) =
                    take(&mut queue.requests).into_iter().partition(&expired);
                queue.requests = left;
                out.extend(gone);
            }
        }
        if !out.is_empty() {
            self.queued -= out.len();
            let lanes = &mut self.lanes;
            self.turns.retain(|id| {
                lanes.get_mut(id).is_some_and(|queue| {
                    queue.has_turn = queue.may_start();
                    queue.has_turn
                })
            });
        }
        out
    }

    /// All that wait.
    pub(crate) fn clear(&mut self) -> Vec<R> {
        self.expire(|_| true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(id: u64, in_flight: usize, queue: usize) -> Lane {
        Lane { id, in_flight, queue, queue_timeout: None }
    }

    /// Starts all that may be.
    fn start(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.start()).map(|(request, _)| request).collect()
    }

    #[test]
    fn lanes_take_turns_and_each_is_first_in_first_out() {
        let mut lanes = Lanes::new();
        let (a, b) = (lane(1, 9, 9), lane(2, 9, 9));
        for (lane, request) in [(a, "a1"), (a, "a2"), (a, "a3"), (b, "b1"), (b, "b2")] {
            lanes.push(&lane, request).expect("there is room");
        }
        assert_eq!(lanes.queued(), 5);
        assert_eq!(start(&mut lanes), ["a1", "b1", "a2", "b2", "a3"]);
        assert_eq!((lanes.queued(), lanes.may_start()), (0, false));
    }

    #[test]
    fn a_lane_that_is_full_leaves_the_workers_to_others() {
        let mut lanes = Lanes::new();
        let (full, other) = (lane(1, 2, 9), lane(2, 9, 9));
        for (lane, request) in [(full, "f1"), (full, "f2"), (full, "f3"), (full, "f4"), (other, "o1")] {
            lanes.push(&lane, request).expect("there is room");
        }
        assert_eq!(start(&mut lanes), ["f1", "o1", "f2"]);
        assert!(!lanes.may_start());
        lanes.end(1);
        assert_eq!(start(&mut lanes), ["f3"]);
        lanes.end(1);
        lanes.end(1);
        lanes.end(2);
        assert_eq!(start(&mut lanes), ["f4"]);
    }

    #[test]
    fn what_can_start_at_once_needs_no_place_in_the_queue() {
        let mut lanes = Lanes::new();
        let lane = lane(1, 2, 0);
        assert_eq!(
            [lanes.push(&lane, "1"), lanes.push(&lane, "2"), lanes.push(&lane, "3")],
            [Ok(()), Ok(()), Err("3")]
        );
        assert_eq!(start(&mut lanes), ["1", "2"]);
        assert_eq!(lanes.push(&lane, "4"), Err("4"));
        lanes.end(1);
        assert_eq!(lanes.push(&lane, "5"), Ok(()));
    }

    #[test]
    fn bounds_that_change_hold_for_what_comes_next() {
        let mut lanes = Lanes::new();
        for request in ["1", "2"] {
            lanes.push(&lane(1, 1, 9), request).expect("there is room");
        }
        assert_eq!(start(&mut lanes), ["1"]);
        lanes.push(&lane(1, 3, 9), "3").expect("there is room");
        assert_eq!(start(&mut lanes), ["2", "3"]);
        lanes.push(&lane(1, 1, 9), "4").expect("there is room");
        lanes.end(1);
        lanes.end(1);
        assert!(!lanes.may_start());
        lanes.end(1);
        assert_eq!(start(&mut lanes), ["4"]);
    }

    #[test]
    fn what_has_expired_takes_no_turn() {
        let mut lanes = Lanes::new();
        let (a, b) = (lane(1, 1, 9), lane(2, 1, 9));
        for (lane, request) in [(a, "old"), (b, "old too"), (b, "young")] {
            lanes.push(&lane, request).expect("there is room");
        }
        let mut out = lanes.expire(|request| request.starts_with("old"));
        out.sort_unstable();
        assert_eq!((out, lanes.queued()), (vec!["old", "old too"], 1));
        assert_eq!(start(&mut lanes), ["young"]);
        assert!(lanes.expire(|_| true).is_empty());
    }

    #[test]
    fn a_lane_of_which_nothing_is_left_is_forgotten() {
        let mut lanes = Lanes::new();
        for id in 0..1000 {
            lanes.push(&lane(id, 1, 1), "request").expect("there is room");
            lanes.start().expect("it may");
            lanes.end(id);
        }
        assert!(lanes.lanes.len() <= 2, "{}", lanes.lanes.len());
    }
}
