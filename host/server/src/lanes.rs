//! Whose turn it is: requests that wait to be started, and those whose wait is over and that want a seat again, in a queue for each lane, so that
//! the clients of one handler that is slow or sought after take neither all workers nor the others' time. Lives under the lock of `seats.rs`; only
//! decides.
//!
//! Next is the lane that has held seats for the shortest time (start-time fair queuing: Goyal, Vin and Cheng, SIGCOMM 1996); in a lane those that
//! return and those that are new take turns. How long a request will hold its seat is not known before: its lane pays the average in advance, and the
//! rest when the request waits or ends. A lane that had nothing to do saves nothing up, and none pays for more than `MOST_OWED`.
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
    /// As many of them may be started as long as there is room for any; more, only while three quarters of all requests that may have been
    /// started are not. So lanes that are slow or sought after leave room for the others, however many they are.
    pub kept: usize,
    /// Requests of the lane that may wait to be started; beyond it the client gets 503 at once.
    pub queue: usize,
    /// How long one may wait to be started; then its client gets 503. None: as long as the server says.
    pub queue_timeout: Option<Duration>,
}

impl Default for Lane {
    /// Without bounds of its own.
    fn default() -> Self {
        Self { id: 0, in_flight: usize::MAX, kept: usize::MAX, queue: usize::MAX, queue_timeout: None }
    }
}

/// As many lanes are never too many.
const FEW: usize = 64;

/// By how much a lane may be behind the others for what it has used, so that they do not have all of the seats for long.
const MOST_OWED: Nanos = 1_000_000_000;

/// Time that seats were held for.
pub(crate) type Nanos = u64;

/// A request's lane, and what was known of it when the request was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) lane: u64,
    /// How long requests of the lane hold a seat, by the average, before they wait or end; 0 while that is not known.
    pub(crate) expected: Nanos,
}

/// What may be started, as far as all lanes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Nothing,
    /// What is kept for its lane.
    Kept,
    Anything,
}

/// Who is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A request that has not been started.
    New,
    /// One that has, and comes back.
    Back,
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

pub(crate) struct Lanes<R, B> {
    lanes: HashMap<u64, Queue<R, B>>,
    /// So many make it worth a look which of them can be forgotten.
    many: usize,
    line: Line,
    queued: usize,
}

/// The lanes that have something to do.
struct Line {
    claims: Vec<Claim>,
    /// What the lane had used that was last in turn.
    now: Nanos,
    /// While so many of a lane had to give way, nothing of it is started, or there would be ever more of them.
    most_pressed: usize,
}

struct Queue<R, B> {
    requests: VecDeque<R>,
    /// Those that come back, first in first out; and whether they had to give way.
    returning: VecDeque<(B, bool)>,
    in_flight: usize,
    kept: usize,
    started: usize,
    /// Of those that come back, how many had to give way.
    pressed: usize,
    last: Next,
    used: Nanos,
    average: Nanos,
}

/// What there is to do for a lane. A copy of what its queue says.
struct Claim {
    lane: u64,
    used: Nanos,
    new: bool,
    /// What is new is within what is kept for the lane.
    is_kept: bool,
    back: bool,
    last: Next,
}

impl<R, B> Queue<R, B> {
    fn new() -> Self {
        Self {
            requests: VecDeque::new(),
            returning: VecDeque::new(),
            in_flight: 1,
            kept: 1,
            started: 0,
            pressed: 0,
            last: Next::Back,
            used: 0,
            average: 0,
        }
    }

    fn may_start(&self, most_pressed: usize) -> bool {
        !self.requests.is_empty() && self.started < self.in_flight && self.pressed < most_pressed
    }
}

impl Claim {
    fn next(&self, room: Room) -> Option<Next> {
        let may_start = room == Room::Anything || (room == Room::Kept && self.is_kept);
        match (self.new && may_start, self.back) {
            (true, true) if self.last == Next::New => Some(Next::Back),
            (true, _) => Some(Next::New),
            (false, true) => Some(Next::Back),
            (false, false) => None,
        }
    }
}

impl Line {
    /// The first of those that have used the least.
    fn first(&self, room: Room) -> Option<(u64, Next)> {
        let claims = self.claims.iter().filter_map(|claim| Some((claim.used, claim.lane, claim.next(room)?)));
        let (_, lane, next) = claims.min_by_key(|(used, ..)| *used)?;
        Some((lane, next))
    }

    /// One of the lane has a seat from now on: its lane pays for the time that this will take on average.
    fn seat<R, B>(&mut self, lane: u64, queue: &mut Queue<R, B>, next: Next) {
        queue.last = next;
        self.now = self.now.max(queue.used);
        queue.used += queue.average.max(1);
        self.update(lane, queue);
    }

    /// Brings the lane's claim in line with its queue.
    fn update<R, B>(&mut self, lane: u64, queue: &mut Queue<R, B>) {
        let (new, back) = (queue.may_start(self.most_pressed), !queue.returning.is_empty());
        let at = self.claims.iter().position(|claim| claim.lane == lane);
        if !new && !back {
            if let Some(at) = at {
                self.claims.remove(at);
            }
            return;
        }
        if at.is_none() {
            queue.used = queue.used.max(self.now);
        }
        let is_kept = queue.started < queue.kept;
        let claim = Claim { lane, used: queue.used, new, is_kept, back, last: queue.last };
        match at {
            Some(at) => self.claims[at] = claim,
            None => self.claims.push(claim),
        }
    }
}

impl<R, B> Lanes<R, B> {
    pub(crate) fn new(most_pressed: usize) -> Self {
        let line = Line { claims: Vec::new(), now: 0, most_pressed };
        Self { lanes: HashMap::new(), many: FEW, line, queued: 0 }
    }

    /// Requests that wait to be started.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Those of one lane.
    pub(crate) fn queued_in(&self, lane: u64) -> usize {
        self.lanes.get(&lane).map_or(0, |queue| queue.requests.len())
    }

    /// Adds a request, or gives it back if its lane has as many as may wait.
    pub(crate) fn push(&mut self, lane: &Lane, request: R) -> Result<(), R> {
        if self.lanes.len() >= self.many {
            self.lanes.retain(|_, queue| queue.started > 0 || !queue.requests.is_empty());
            self.many = FEW.max(2 * self.lanes.len());
        }
        let queue = self.lanes.entry(lane.id).or_insert_with(Queue::new);
        (queue.in_flight, queue.kept) = (lane.in_flight.max(1), lane.kept);
        // One that can be started at once waits for a worker, and not for its lane.
        if queue.requests.len() >= lane.queue && queue.started + queue.requests.len() >= queue.in_flight {
            return Err(request);
        }
        queue.requests.push_back(request);
        self.queued += 1;
        self.line.update(lane.id, queue);
        Ok(())
    }

    /// Whose turn it is.
    pub(crate) fn next(&self, room: Room) -> Option<Next> {
        Some(self.line.first(room)?.1)
    }

    /// The next request, if a new one is next. Its lane counts it from now on.
    pub(crate) fn start(&mut self, room: Room) -> Option<(R, Turn)> {
        let (lane, Next::New) = self.line.first(room)? else { return None };
        let queue = self.lanes.get_mut(&lane)?;
        let request = queue.requests.pop_front()?;
        queue.started += 1;
        self.queued -= 1;
        let turn = Turn { lane, expected: queue.average };
        self.line.seat(lane, queue, Next::New);
        Some((request, turn))
    }

    /// Whoever comes back next, if one that comes back is.
    pub(crate) fn resume(&mut self, room: Room) -> Option<B> {
        let (lane, Next::Back) = self.line.first(room)? else { return None };
        let queue = self.lanes.get_mut(&lane)?;
        let (back, was_pressed) = queue.returning.pop_front()?;
        queue.pressed -= usize::from(was_pressed);
        self.line.seat(lane, queue, Next::Back);
        Some(back)
    }

    /// A request waits, has to give way, or has ended: its lane pays for what it took more than the average, or gets back what it took less.
    pub(crate) fn pay(&mut self, lane: u64, held: Held) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        let paid = queue.average;
        let held = match held {
            Held::Unknown => paid,
            Held::Long(held) => held,
            Held::Sample(held) => {
                queue.average = if paid == 0 { held } else { paid - paid / 8 + held / 8 };
                held
            }
        };
        queue.used = queue.used.saturating_add(held).saturating_sub(paid).min(self.line.now + MOST_OWED);
        self.line.update(lane, queue);
    }

    /// A request wants a seat again: its wait is over, or it had to give way (`pressed`).
    pub(crate) fn come_back(&mut self, lane: u64, back: B, pressed: bool) {
        let queue = self.lanes.entry(lane).or_insert_with(Queue::new);
        queue.returning.push_back((back, pressed));
        if pressed {
            queue.pressed += 1;
            // Or it would be the next itself.
            queue.last = Next::Back;
        }
        self.line.update(lane, queue);
    }

    /// A request has ended.
    pub(crate) fn end(&mut self, lane: u64) {
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.started -= 1;
            self.line.update(lane, queue);
        }
    }

    /// Takes out the requests for which `expired` holds.
    pub(crate) fn expire(&mut self, expired: impl Fn(&R) -> bool) -> Vec<R> {
        let mut out = Vec::new();
        for (lane, queue) in &mut self.lanes {
            if queue.requests.iter().any(&expired) {
                let (gone, left): (VecDeque<_>, VecDeque<_>) =
                    take(&mut queue.requests).into_iter().partition(&expired);
                queue.requests = left;
                out.extend(gone);
                self.line.update(*lane, queue);
            }
        }
        self.queued -= out.len();
        out
    }

    /// All that wait to be started, and all that come back.
    pub(crate) fn clear(&mut self) -> (Vec<R>, Vec<B>) {
        self.line.claims.clear();
        self.queued = 0;
        let queues = self.lanes.drain().map(|(_, queue)| queue);
        let (requests, returning): (Vec<_>, Vec<_>) = queues.map(|queue| (queue.requests, queue.returning)).unzip();
        let returning = returning.into_iter().flatten().map(|(back, _)| back).collect();
        (requests.into_iter().flatten().collect(), returning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(id: u64, in_flight: usize, queue: usize) -> Lane {
        Lane { id, in_flight, queue, ..Lane::default() }
    }

    /// Starts all that may be.
    fn start(lanes: &mut Lanes<&'static str, ()>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.start(Room::Anything)).map(|(request, _)| request).collect()
    }

    #[test]
    fn lanes_take_turns_and_each_is_first_in_first_out() {
        let mut lanes = Lanes::new(1);
        let (a, b) = (lane(1, 9, 9), lane(2, 9, 9));
        for (lane, request) in [(a, "a1"), (a, "a2"), (a, "a3"), (b, "b1"), (b, "b2")] {
            lanes.push(&lane, request).expect("there is room");
        }
        assert_eq!(lanes.queued(), 5);
        assert_eq!(start(&mut lanes), ["a1", "b1", "a2", "b2", "a3"]);
        assert_eq!((lanes.queued(), lanes.next(Room::Anything)), (0, None));
    }

    /// Runs requests of two lanes one after the other, each as long as its lane takes; how many of each were run.
    fn run(lanes: &mut Lanes<u64, ()>, takes: [Nanos; 2], requests: usize) -> [usize; 2] {
        let mut ran = [0; 2];
        for id in [0, 1] {
            for _ in 0..100 {
                lanes.push(&lane(id, usize::MAX, 100), id).expect("there is room");
            }
        }
        for _ in 0..requests {
            let (id, turn) = lanes.start(Room::Anything).expect("there are more");
            lanes.pay(turn.lane, Held::Sample(takes[id as usize]));
            lanes.end(turn.lane);
            lanes.push(&lane(id, usize::MAX, 100), id).expect("there is room");
            ran[id as usize] += 1;
        }
        ran
    }

    #[test]
    fn lanes_have_the_same_time_and_not_the_same_number_of_turns() {
        let mut lanes = Lanes::new(1);
        let [short, long] = run(&mut lanes, [25_000, 2_500_000], 1010);
        assert!((995..=1001).contains(&short), "{short}");
        assert_eq!(short + long, 1010);
    }

    #[test]
    fn a_lane_pays_for_time_that_nobody_foresaw_and_not_for_ever() {
        let mut lanes = Lanes::new(1);
        run(&mut lanes, [1_000_000, 1_000_000], 20);
        // What it does after a wait counts as well.
        let (id, turn) = lanes.start(Room::Anything).expect("there are more");
        lanes.pay(turn.lane, Held::Long(1_000_000));
        lanes.come_back(turn.lane, (), false);
        while lanes.resume(Room::Anything).is_none() {
            lanes.start(Room::Anything).expect("it is not next");
        }
        lanes.pay(turn.lane, Held::Long(41_000_000));
        let starts = |lanes: &mut Lanes<u64, ()>, most| {
            let others =
                std::iter::from_fn(|| lanes.start(Room::Anything)).take(most).take_while(|(other, _)| *other != id);
            others.count()
        };
        assert!((39..=42).contains(&starts(&mut lanes, 100)), "40 ms of the other's");
        let mut lanes = Lanes::new(1);
        run(&mut lanes, [100_000_000, 100_000_000], 20);
        let (id, turn) = lanes.start(Room::Anything).expect("there are more");
        lanes.pay(turn.lane, Held::Long(u64::MAX / 2));
        let others = std::iter::from_fn(|| lanes.start(Room::Anything)).take_while(|(other, _)| *other != id);
        assert!((9..=12).contains(&others.count()), "one second of the other's");
    }

    #[test]
    fn a_lane_that_had_nothing_to_start_saves_nothing_up() {
        let mut lanes = Lanes::<_, ()>::new(1);
        let (busy, late) = (lane(1, 9, 999), lane(2, 9, 999));
        for _ in 0..200 {
            lanes.push(&busy, "busy").expect("there is room");
            let (_, turn) = lanes.start(Room::Anything).expect("it may");
            lanes.pay(turn.lane, Held::Sample(1_000_000));
            lanes.end(turn.lane);
        }
        for (lane, request) in [(busy, "busy"), (late, "late")].repeat(8) {
            lanes.push(&lane, request).expect("there is room");
        }
        let mut order = Vec::new();
        while let Some((request, turn)) = lanes.start(Room::Anything) {
            lanes.pay(turn.lane, Held::Sample(1_000_000));
            lanes.end(turn.lane);
            order.push(request);
        }
        let first = order.iter().position(|request| *request == "busy").expect("it has some");
        assert!(first <= 2, "{order:?}");
        assert!(order[..6].contains(&"late"), "{order:?}");
    }

    #[test]
    fn those_that_come_back_and_those_that_are_new_take_turns() {
        let mut lanes = Lanes::new(1);
        let busy = lane(1, 99, 99);
        for _ in 0..9 {
            lanes.push(&busy, "new").expect("there is room");
        }
        for _ in 0..3 {
            lanes.start(Room::Anything).expect("it may");
        }
        for back in ["first", "second", "third"] {
            lanes.come_back(1, back, false);
        }
        let mut order = Vec::new();
        while let Some(next) = lanes.next(Room::Anything) {
            order.push(match next {
                Next::New => lanes.start(Room::Anything).expect("it is next").0,
                Next::Back => lanes.resume(Room::Anything).expect("it is next"),
            });
        }
        assert_eq!(order, ["first", "new", "second", "new", "third", "new", "new", "new", "new"]);
    }

    #[test]
    fn nothing_new_is_started_beside_too_many_that_had_to_give_way() {
        let mut lanes = Lanes::new(2);
        let (busy, other) = (lane(1, 9, 9), lane(2, 9, 9));
        for request in ["1", "2", "3"] {
            lanes.push(&busy, request).expect("there is room");
        }
        lanes.start(Room::Anything).expect("it may");
        for started in ["2", "3"] {
            lanes.pay(1, Held::Long(5_000_000));
            lanes.come_back(1, (), true);
            let next = lanes.start(Room::Anything).map(|(request, _)| request);
            assert_eq!(next, (started == "2").then_some("2"));
        }
        lanes.push(&other, "other").expect("there is room");
        assert_eq!(lanes.start(Room::Anything).map(|(request, _)| request), Some("other"));
        assert!(lanes.resume(Room::Anything).is_some());
        assert_eq!(lanes.start(Room::Anything).map(|(request, _)| request), Some("3"));
    }

    #[test]
    fn where_little_is_left_a_lane_has_what_is_kept_for_it() {
        let mut lanes = Lanes::<_, ()>::new(1);
        let keeps = |id| Lane { kept: 1, ..lane(id, 9, 9) };
        for (id, request) in [(1, "a1"), (1, "a2"), (2, "b1"), (2, "b2")] {
            lanes.push(&keeps(id), request).expect("there is room");
        }
        let mut kept = || lanes.start(Room::Kept).map(|(request, _)| request);
        assert_eq!([kept(), kept(), kept()], [Some("a1"), Some("b1"), None]);
        assert_eq!(lanes.next(Room::Nothing), None);
        assert_eq!(start(&mut lanes), ["a2", "b2"]);
    }

    #[test]
    fn a_lane_that_is_full_leaves_the_workers_to_others() {
        let mut lanes = Lanes::new(1);
        let (full, other) = (lane(1, 2, 9), lane(2, 9, 9));
        for (lane, request) in [(full, "f1"), (full, "f2"), (full, "f3"), (full, "f4"), (other, "o1")] {
            lanes.push(&lane, request).expect("there is room");
        }
        assert_eq!(start(&mut lanes), ["f1", "o1", "f2"]);
        assert!(lanes.next(Room::Anything).is_none());
        lanes.end(1);
        assert_eq!(start(&mut lanes), ["f3"]);
        lanes.end(1);
        lanes.end(1);
        lanes.end(2);
        assert_eq!(start(&mut lanes), ["f4"]);
    }

    #[test]
    fn what_can_start_at_once_needs_no_place_in_the_queue() {
        let mut lanes = Lanes::new(1);
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
        let mut lanes = Lanes::new(1);
        for request in ["1", "2"] {
            lanes.push(&lane(1, 1, 9), request).expect("there is room");
        }
        assert_eq!(start(&mut lanes), ["1"]);
        lanes.push(&lane(1, 3, 9), "3").expect("there is room");
        assert_eq!(start(&mut lanes), ["2", "3"]);
        lanes.push(&lane(1, 1, 9), "4").expect("there is room");
        lanes.end(1);
        lanes.end(1);
        assert!(lanes.next(Room::Anything).is_none());
        lanes.end(1);
        assert_eq!(start(&mut lanes), ["4"]);
    }

    #[test]
    fn what_has_expired_takes_no_turn() {
        let mut lanes = Lanes::new(1);
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
        let mut lanes = Lanes::<_, ()>::new(1);
        for id in 0..1000 {
            lanes.push(&lane(id, 1, 1), "request").expect("there is room");
            lanes.start(Room::Anything).expect("it may");
            lanes.end(id);
        }
        assert!(lanes.lanes.len() <= FEW, "{}", lanes.lanes.len());
    }
}
