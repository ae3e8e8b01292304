//! Requests that wait to be started: a queue for each lane, so that the clients of one handler that is slow or sought after take neither all
//! workers nor the others' time. Lives under the lock of `seats.rs`; only decides.
//!
//! Next is the lane that has held seats for the shortest time (start-time fair queuing: Goyal, Vin and Cheng, SIGCOMM 1996). What a request
//! will take is not known before: its lane pays the average in advance, and the rest when the request waits or ends. A lane that had
//! nothing to start saves nothing up, and none pays for more than `MOST_OWED`.
//!
//! A lane is there from its first request on. Those of which nothing is left are forgotten when there are many, with what is known of them.

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::time::Duration;

/// The bounds that a request shares with the others of its lane, such as all those of one handler; see
/// [`Handler::admit`](crate::Handler::admit). A bound that is new holds for the requests that come after it.
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

/// As many lanes are never too many.
const FEW: usize = 64;

/// By how much a lane may be behind the others for what it has used, so that they do not have all of the seats for long.
const MOST_OWED: Nanos = 1_000_000_000;

/// Time that seats were held for.
pub(crate) type Nanos = u64;

/// A request's turn: whose it was, and what has been paid for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    lane: u64,
    /// How long requests of the lane hold a seat, by the average, before they wait or end; 0 while that is not known.
    pub(crate) expected: Nanos,
    /// It has been paid for.
    paid: Nanos,
}

impl Turn {
    /// What is paid is not paid again.
    pub(crate) fn settled(self) -> Self {
        Self { paid: 0, ..self }
    }
}

/// How long a request held its seat until it ended or began to wait, if the clock was read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Held {
    Unknown,
    /// Only because it was long: no sample.
    Long(Nanos),
    Sample(Nanos),
}

impl Held {
    /// Longer than a tick.
    pub(crate) fn is_long(self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Long(_) => true,
            Self::Sample(held) => held > 1_000_000,
        }
    }
}

pub(crate) struct Lanes<R> {
    lanes: HashMap<u64, Queue<R>>,
    /// So many make it worth a look which of them can be forgotten.
    many: usize,
    /// Those that have a request which may be started, each once, with the time that they have used.
    turns: Vec<(Nanos, u64)>,
    /// What the lane had used that was last in turn.
    now: Nanos,
    queued: usize,
}

struct Queue<R> {
    requests: VecDeque<R>,
    in_flight: usize,
    started: usize,
    /// It is in `turns`.
    has_turn: bool,
    used: Nanos,
    average: Nanos,
}

impl<R> Queue<R> {
    fn may_start(&self) -> bool {
        !self.requests.is_empty() && self.started < self.in_flight
    }
}

impl<R> Lanes<R> {
    pub(crate) fn new() -> Self {
        Self { lanes: HashMap::new(), many: FEW, turns: Vec::new(), now: 0, queued: 0 }
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
        if self.lanes.len() >= self.many {
            self.lanes.retain(|_, queue| queue.started > 0 || !queue.requests.is_empty());
            self.many = FEW.max(2 * self.lanes.len());
        }
        let new =
            || Queue { requests: VecDeque::new(), in_flight: 1, started: 0, has_turn: false, used: 0, average: 0 };
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

    /// The next request, which its lane counts from now on.
    pub(crate) fn start(&mut self) -> Option<(R, Turn)> {
        // The first of those that have used the least.
        let (at, _) = self.turns.iter().enumerate().min_by_key(|(_, (used, _))| *used)?;
        let (_, lane) = self.turns.remove(at);
        let queue = self.lanes.get_mut(&lane)?;
        queue.has_turn = false;
        let request = queue.requests.pop_front()?;
        queue.started += 1;
        self.queued -= 1;
        self.now = self.now.max(queue.used);
        let turn = Turn { lane, expected: queue.average, paid: queue.average.max(1) };
        queue.used += turn.paid;
        self.give_turn(lane);
        Some((request, turn))
    }

    /// A request waits, or it has ended: its lane pays for the time since it had its seat.
    pub(crate) fn pay(&mut self, turn: Turn, held: Held) {
        let Some(queue) = self.lanes.get_mut(&turn.lane) else { return };
        let held = match held {
            Held::Unknown => queue.average,
            Held::Long(held) => held,
            Held::Sample(held) => {
                queue.average = if queue.average == 0 { held } else { queue.average - queue.average / 8 + held / 8 };
                held
            }
        };
        queue.used = queue.used.saturating_add(held).saturating_sub(turn.paid).min(self.now + MOST_OWED);
        if queue.has_turn
            && let Some((used, _)) = self.turns.iter_mut().find(|(_, lane)| *lane == turn.lane)
        {
            *used = queue.used;
        }
    }

    /// A request has ended.
    pub(crate) fn end(&mut self, turn: Turn) {
        if let Some(queue) = self.lanes.get_mut(&turn.lane) {
            queue.started -= 1;
            self.give_turn(turn.lane);
        }
    }

    /// Lets it take part, if there is something to start and it does not already.
    fn give_turn(&mut self, lane: u64) {
        if let Some(queue) = self.lanes.get_mut(&lane)
            && !queue.has_turn
            && queue.may_start()
        {
            queue.has_turn = true;
            queue.used = queue.used.max(self.now);
            self.turns.push((queue.used, lane));
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
            self.turns.retain(|(_, lane)| {
                lanes.get_mut(lane).is_some_and(|queue| {
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

    fn end(lanes: &mut Lanes<&'static str>, id: u64) {
        lanes.end(Turn { lane: id, ..Turn::default() });
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

    /// Runs requests of two lanes one after the other, each as long as its lane takes; how many of each were run.
    fn run(lanes: &mut Lanes<u64>, takes: [Nanos; 2], requests: usize) -> [usize; 2] {
        let mut ran = [0; 2];
        for id in [0, 1] {
            for _ in 0..100 {
                lanes.push(&lane(id, usize::MAX, 100), id).expect("there is room");
            }
        }
        for _ in 0..requests {
            let (id, turn) = lanes.start().expect("there are more");
            lanes.pay(turn, Held::Sample(takes[id as usize]));
            lanes.end(turn);
            lanes.push(&lane(id, usize::MAX, 100), id).expect("there is room");
            ran[id as usize] += 1;
        }
        ran
    }

    #[test]
    fn lanes_have_the_same_time_and_not_the_same_number_of_turns() {
        let mut lanes = Lanes::new();
        let [short, long] = run(&mut lanes, [25_000, 2_500_000], 1010);
        assert!((995..=1001).contains(&short), "{short}");
        assert_eq!(short + long, 1010);
    }

    #[test]
    fn a_lane_pays_for_time_that_nobody_foresaw_and_not_for_ever() {
        let mut lanes = Lanes::new();
        run(&mut lanes, [1_000_000, 1_000_000], 20);
        // What it does after a wait counts as well.
        let (id, turn) = lanes.start().expect("there are more");
        lanes.pay(turn, Held::Long(1_000_000));
        lanes.pay(turn.settled(), Held::Long(40_000_000));
        let starts = |lanes: &mut Lanes<u64>, most| {
            let others = std::iter::from_fn(|| lanes.start()).take(most).take_while(|(other, _)| *other != id);
            others.count()
        };
        assert!((39..=42).contains(&starts(&mut lanes, 100)), "40 ms of the other's");
        let mut lanes = Lanes::new();
        run(&mut lanes, [100_000_000, 100_000_000], 20);
        let (id, turn) = lanes.start().expect("there are more");
        lanes.pay(turn, Held::Long(u64::MAX / 2));
        let others = std::iter::from_fn(|| lanes.start()).take_while(|(other, _)| *other != id);
        assert!((9..=12).contains(&others.count()), "one second of the other's");
    }

    #[test]
    fn a_lane_that_had_nothing_to_start_saves_nothing_up() {
        let mut lanes = Lanes::new();
        let (busy, late) = (lane(1, 9, 999), lane(2, 9, 999));
        for _ in 0..200 {
            lanes.push(&busy, "busy").expect("there is room");
            let (_, turn) = lanes.start().expect("it may");
            lanes.pay(turn, Held::Sample(1_000_000));
            lanes.end(turn);
        }
        for (lane, request) in [(busy, "busy"), (late, "late")].repeat(8) {
            lanes.push(&lane, request).expect("there is room");
        }
        let mut order = Vec::new();
        while let Some((request, turn)) = lanes.start() {
            lanes.pay(turn, Held::Sample(1_000_000));
            lanes.end(turn);
            order.push(request);
        }
        let first = order.iter().position(|request| *request == "busy").expect("it has some");
        assert!(first <= 2, "{order:?}");
        assert!(order[..6].contains(&"late"), "{order:?}");
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
        end(&mut lanes, 1);
        assert_eq!(start(&mut lanes), ["f3"]);
        end(&mut lanes, 1);
        end(&mut lanes, 1);
        end(&mut lanes, 2);
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
        end(&mut lanes, 1);
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
        end(&mut lanes, 1);
        end(&mut lanes, 1);
        assert!(!lanes.may_start());
        end(&mut lanes, 1);
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
            end(&mut lanes, id);
        }
        assert!(lanes.lanes.len() <= FEW, "{}", lanes.lanes.len());
    }
}
