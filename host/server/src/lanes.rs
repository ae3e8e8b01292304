//! Whose turn it is: requests that wait to be started, and those whose wait is over and that want a seat again, in a queue for each lane, so that
//! the clients of one handler that is slow or sought after take neither all workers nor the others' time. Lives under the lock of `seats.rs`; only
//! decides.
//!
//! Next is the lane that has held seats for the shortest time (start-time fair queuing: Goyal, Vin and Cheng, SIGCOMM 1996); and in a lane the same
//! holds of those that had to give way and all others, so that what is short does not wait for what is long; the others, that return from a wait or
//! are new, take turns. How long a request will hold its seat is not known before: the average is paid in advance, and the rest when the request
//! waits or ends. Who had nothing to do saves nothing up, and none pays for more than `MOST_OWED`.
//!
//! A lane is there from its first request on. Those of which nothing is left are forgotten when there are many, with what is known of them.

use std::collections::{BTreeMap, VecDeque};
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

/// By how much one may be behind the others for what it has used, so that they do not have all of the seats for long.
const MOST_OWED: Nanos = 1_000_000_000;

/// Time that seats were held for.
pub(crate) type Nanos = u64;

/// A request that is expected to hold its seat for longer is slow. Polls take less, nearly all.
const SLOW_REQUEST: Nanos = 50_000;

/// No stretch is expected to take longer: where others want a seat it has to give way sooner. One that took seconds while nobody did says nothing
/// of the next.
const MOST_EXPECTED: Nanos = 10_000_000;

/// A request's lane, and what was known of it when the request was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) lane: u64,
    /// How long requests of the lane hold a seat, by the average, before they wait or end; 0 while that is not known.
    pub(crate) expected: Nanos,
}

impl Turn {
    /// While it runs, somebody else has to watch the reactor.
    pub(crate) fn is_slow(self) -> bool {
        self.expected > SLOW_REQUEST
    }

    /// Whether to read the clock for it in any case: nothing is known of its lane, or it takes so long that this is nothing beside it.
    pub(crate) fn is_timed(self) -> bool {
        self.expected == 0 || self.is_slow()
    }

    /// Polls that take at most as long.
    pub(crate) fn polls(self) -> u64 {
        self.expected / SLOW_REQUEST
    }
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
    Back(Kind),
}

/// What is known of a stretch of a request, from when it gets a seat to when it waits, has to give way, or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first, or after a wait.
    Short,
    /// It had to give way before, and goes on.
    Long,
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
    /// Few, and looked up four times a request: hashing would cost more than all else that is done here.
    lanes: BTreeMap<u64, Queue<R, B>>,
    /// So many make it worth a look which of them can be forgotten.
    many: usize,
    line: Line,
    queued: usize,
}

/// The virtual time of those that share something by what they have used: what the one had used that was last in turn.
#[derive(Clone, Copy, Default)]
struct VirtualTime(Nanos);

impl VirtualTime {
    /// One has something to do from now on. Who had nothing has saved nothing up.
    fn begin(self, used: &mut Nanos) {
        *used = self.0.max(*used);
    }

    /// It is in turn, and pays so much in advance.
    fn seat(&mut self, used: &mut Nanos, price: Nanos) {
        self.0 = self.0.max(*used);
        *used += price;
    }

    /// It has held its seat for so long, and paid for so much of that.
    fn pay(self, used: &mut Nanos, held: Nanos, paid: Nanos) {
        *used = used.saturating_add(held).saturating_sub(paid).min(self.0 + MOST_OWED);
    }
}

/// The lanes that have something to do.
struct Line {
    claims: Vec<Claim>,
    now: VirtualTime,
    /// While so many of a lane had to give way, nothing of it is started, or there would be ever more of them.
    most_long: usize,
}

struct Queue<R, B> {
    requests: VecDeque<R>,
    /// Those that come back, first in first out: from a wait, and after they had to give way.
    returning: [VecDeque<B>; 2],
    in_flight: usize,
    kept: usize,
    started: usize,
    /// Whether a new one was the last that was short.
    was_new: bool,
    used: Nanos,
    /// Of each kind what its stretches have used, counted as lanes are among each other.
    shares: [Nanos; 2],
    now: VirtualTime,
    /// How long a stretch takes.
    average: [Nanos; 2],
}

/// What there is to do for a lane. A copy of what its queue says.
struct Claim {
    lane: u64,
    used: Nanos,
    new: bool,
    /// What is new is within what is kept for the lane.
    is_kept: bool,
    back: [bool; 2],
    was_new: bool,
    /// What is long has used less than what is short.
    long_first: bool,
}

impl<R, B> Queue<R, B> {
    fn new() -> Self {
        Self {
            requests: VecDeque::new(),
            returning: [VecDeque::new(), VecDeque::new()],
            in_flight: 1,
            kept: 1,
            started: 0,
            was_new: false,
            used: 0,
            shares: [0; 2],
            now: VirtualTime::default(),
            average: [0; 2],
        }
    }

    fn may_start(&self, most_long: usize) -> bool {
        !self.requests.is_empty()
            && self.started < self.in_flight
            && self.returning[Kind::Long as usize].len() < most_long
    }
}

impl Claim {
    fn next(&self, room: Room) -> Option<Next> {
        let may_start = self.new && (room == Room::Anything || (room == Room::Kept && self.is_kept));
        let [back, long] = self.back;
        let short = match (may_start, back) {
            (true, true) if self.was_new => Some(Next::Back(Kind::Short)),
            (true, _) => Some(Next::New),
            (false, true) => Some(Next::Back(Kind::Short)),
            (false, false) => None,
        };
        short.filter(|_| !(long && self.long_first)).or(long.then_some(Next::Back(Kind::Long)))
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
        let kind = match next {
            Next::New => Kind::Short,
            Next::Back(kind) => kind,
        };
        if kind == Kind::Short {
            queue.was_new = next == Next::New;
        }
        let price = queue.average[kind as usize].max(1);
        self.now.seat(&mut queue.used, price);
        queue.now.seat(&mut queue.shares[kind as usize], price);
        self.update(lane, queue);
    }

    /// Brings the lane's claim in line with its queue.
    fn update<R, B>(&mut self, lane: u64, queue: &mut Queue<R, B>) {
        let new = queue.may_start(self.most_long);
        let back = queue.returning.each_ref().map(|returning| !returning.is_empty());
        let at = self.claims.iter().position(|claim| claim.lane == lane);
        if !new && back == [false; 2] {
            if let Some(at) = at {
                self.claims.remove(at);
            }
            return;
        }
        let (had_short, had_long) = match at.map(|at| &self.claims[at]) {
            Some(before) => (before.new || before.back[0], before.back[1]),
            None => {
                self.now.begin(&mut queue.used);
                (false, false)
            }
        };
        let [short, long] = &mut queue.shares;
        if !had_short {
            queue.now.begin(short);
        }
        if !had_long {
            queue.now.begin(long);
            // What had to give way goes on after what is short: or it would be next itself.
            *long = (*short).max(*long);
        }
        let is_kept = queue.started < queue.kept;
        let claim =
            Claim { lane, used: queue.used, new, is_kept, back, was_new: queue.was_new, long_first: *long < *short };
        match at {
            Some(at) => self.claims[at] = claim,
            None => self.claims.push(claim),
        }
    }
}

impl<R, B> Lanes<R, B> {
    pub(crate) fn new(most_long: usize) -> Self {
        let line = Line { claims: Vec::new(), now: VirtualTime::default(), most_long };
        Self { lanes: BTreeMap::new(), many: FEW, line, queued: 0 }
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
        let turn = Turn { lane, expected: queue.average[Kind::Short as usize] };
        self.line.seat(lane, queue, Next::New);
        Some((request, turn))
    }

    /// Whoever comes back next, if one that comes back is, and what for.
    pub(crate) fn resume(&mut self, room: Room) -> Option<(B, Kind)> {
        let (lane, next @ Next::Back(kind)) = self.line.first(room)? else { return None };
        let queue = self.lanes.get_mut(&lane)?;
        let back = queue.returning[kind as usize].pop_front()?;
        self.line.seat(lane, queue, next);
        Some((back, kind))
    }

    /// A request waits, has to give way, or has ended: its lane pays for what this stretch took more than the average, or gets back what it took
    /// less.
    pub(crate) fn pay(&mut self, lane: u64, kind: Kind, held: Held) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        let average = &mut queue.average[kind as usize];
        let paid = *average;
        let held = match held {
            Held::Unknown => paid,
            Held::Long(held) => held,
            Held::Sample(held) => {
                let sample = held.min(MOST_EXPECTED);
                *average = if paid == 0 { sample } else { paid - paid / 8 + sample / 8 };
                held
            }
        };
        self.line.now.pay(&mut queue.used, held, paid);
        queue.now.pay(&mut queue.shares[kind as usize], held, paid);
        self.line.update(lane, queue);
    }

    /// A request wants a seat again: its wait is over, or it had to give way (`Long`).
    pub(crate) fn come_back(&mut self, lane: u64, back: B, kind: Kind) {
        let queue = self.lanes.entry(lane).or_insert_with(Queue::new);
        queue.returning[kind as usize].push_back(back);
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
        let queues = take(&mut self.lanes).into_values();
        let (requests, returning): (Vec<_>, Vec<_>) = queues.map(|queue| (queue.requests, queue.returning)).unzip();
        let returning = returning.into_iter().flatten().flatten().collect();
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
            lanes.pay(turn.lane, Kind::Short, Held::Sample(takes[id as usize]));
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
        lanes.pay(turn.lane, Kind::Short, Held::Long(1_000_000));
        lanes.come_back(turn.lane, (), Kind::Short);
        while lanes.resume(Room::Anything).is_none() {
            lanes.start(Room::Anything).expect("it is not next");
        }
        lanes.pay(turn.lane, Kind::Short, Held::Long(41_000_000));
        let starts = |lanes: &mut Lanes<u64, ()>, most| {
            let others =
                std::iter::from_fn(|| lanes.start(Room::Anything)).take(most).take_while(|(other, _)| *other != id);
            others.count()
        };
        assert!((39..=42).contains(&starts(&mut lanes, 100)), "40 ms of the other's");
        let mut lanes = Lanes::new(1);
        run(&mut lanes, [100_000_000, 100_000_000], 20);
        let (id, turn) = lanes.start(Room::Anything).expect("there are more");
        lanes.pay(turn.lane, Kind::Short, Held::Long(u64::MAX / 2));
        let others = std::iter::from_fn(|| {
            let (other, turn) = lanes.start(Room::Anything)?;
            lanes.pay(turn.lane, Kind::Short, Held::Sample(100_000_000));
            Some(other)
        });
        assert!((9..=12).contains(&others.take_while(|other| *other != id).count()), "one second of the other's");
    }

    #[test]
    fn what_took_long_once_is_not_expected_to_again() {
        let mut lanes = Lanes::new(1);
        run(&mut lanes, [10_000_000_000, 25_000], 1);
        let [once_long, short] = run(&mut lanes, [25_000, 25_000], 50);
        assert_eq!((once_long, short), (0, 50), "it pays for that one");
        let mut lanes = Lanes::new(1);
        run(&mut lanes, [10_000_000_000, 10_000_000_000], 2);
        let (_, turn) = lanes.start(Room::Anything).expect("there are more");
        assert!(turn.is_timed() && turn.polls() <= 200, "{turn:?}");
        lanes.pay(turn.lane, Kind::Short, Held::Sample(25_000));
        run(&mut lanes, [25_000, 25_000], 100);
        let (_, turn) = lanes.start(Room::Anything).expect("there are more");
        assert!(!turn.is_slow() && !turn.is_timed(), "{turn:?}");
    }

    #[test]
    fn a_lane_that_had_nothing_to_start_saves_nothing_up() {
        let mut lanes = Lanes::<_, ()>::new(1);
        let (busy, late) = (lane(1, 9, 999), lane(2, 9, 999));
        for _ in 0..200 {
            lanes.push(&busy, "busy").expect("there is room");
            let (_, turn) = lanes.start(Room::Anything).expect("it may");
            lanes.pay(turn.lane, Kind::Short, Held::Sample(1_000_000));
            lanes.end(turn.lane);
        }
        for (lane, request) in [(busy, "busy"), (late, "late")].repeat(8) {
            lanes.push(&lane, request).expect("there is room");
        }
        let mut order = Vec::new();
        while let Some((request, turn)) = lanes.start(Room::Anything) {
            lanes.pay(turn.lane, Kind::Short, Held::Sample(1_000_000));
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
            lanes.come_back(1, back, Kind::Short);
        }
        let mut order = Vec::new();
        while let Some(next) = lanes.next(Room::Anything) {
            order.push(match next {
                Next::New => lanes.start(Room::Anything).expect("it is next").0,
                Next::Back(_) => lanes.resume(Room::Anything).expect("it is next").0,
            });
        }
        assert_eq!(order, ["first", "new", "second", "new", "third", "new", "new", "new", "new"]);
    }

    #[test]
    fn in_a_lane_what_had_to_give_way_has_as_much_time_as_all_that_is_short() {
        let mut lanes = Lanes::new(9);
        let busy = lane(1, 99, 999);
        let mut took = [0; 2];
        let mut shorts_in_a_row = 0;
        for request in ["loop", "loop", "loop"] {
            lanes.push(&busy, request).expect("there is room");
        }
        while let Some((request, _)) = lanes.start(Room::Anything) {
            lanes.pay(1, Kind::Short, Held::Long(5_000_000));
            lanes.come_back(1, request, Kind::Long);
        }
        for _ in 0..10_000 {
            if lanes.queued() == 0 {
                lanes.push(&busy, "short").expect("there is room");
                lanes.push(&busy, "short").expect("there is room");
            }
            if let Some((request, kind)) = lanes.resume(Room::Anything) {
                took[kind as usize] += 5_000_000;
                lanes.pay(1, kind, Held::Sample(5_000_000));
                lanes.come_back(1, request, Kind::Long);
                shorts_in_a_row = 0;
                continue;
            }
            lanes.start(Room::Anything).expect("what is short is next");
            took[0] += 25_000;
            lanes.pay(1, Kind::Short, Held::Sample(25_000));
            lanes.end(1);
            shorts_in_a_row += 1;
            assert!(shorts_in_a_row < 500, "loops starve");
        }
        let share = took[0] as f64 / (took[0] + took[1]) as f64;
        assert!((0.45..0.55).contains(&share), "{took:?}");
    }

    #[test]
    fn what_is_short_never_waits_for_more_than_one_stretch_of_what_is_long() {
        let mut lanes = Lanes::new(9);
        let busy = lane(1, 99, 99);
        for request in ["loop", "loop"] {
            lanes.push(&busy, request).expect("there is room");
            lanes.start(Room::Anything).expect("it may");
            lanes.pay(1, Kind::Short, Held::Long(5_000_000));
            lanes.come_back(1, request, Kind::Long);
        }
        for _ in 0..9 {
            for _ in 0..7 {
                let (request, kind) = lanes.resume(Room::Anything).expect("there is nothing else");
                lanes.pay(1, kind, Held::Long(5_000_000));
                lanes.come_back(1, request, kind);
            }
            lanes.push(&busy, "short").expect("there is room");
            assert_eq!(lanes.start(Room::Anything).map(|(request, _)| request), Some("short"));
            lanes.pay(1, Kind::Short, Held::Unknown);
            lanes.end(1);
        }
    }

    #[test]
    fn what_is_short_saves_nothing_up_while_its_lane_is_full() {
        let mut lanes = Lanes::new(9);
        for request in ["loop", "loop", "short", "short", "short"] {
            lanes.push(&lane(1, 2, 9), request).expect("there is room");
        }
        for _ in 0..2 {
            lanes.start(Room::Anything).expect("it may");
            lanes.pay(1, Kind::Short, Held::Sample(5_000_000));
            lanes.come_back(1, "loop", Kind::Long);
        }
        for _ in 0..100 {
            let (request, kind) = lanes.resume(Room::Anything).expect("nothing else may start");
            lanes.pay(1, kind, Held::Sample(5_000_000));
            lanes.come_back(1, request, kind);
        }
        // One has ended.
        lanes.resume(Room::Anything).expect("nothing else may start");
        lanes.pay(1, Kind::Long, Held::Sample(5_000_000));
        lanes.end(1);
        let mut order = Vec::new();
        for _ in 0..4 {
            match lanes.next(Room::Anything) {
                Some(Next::New) => {
                    order.push(lanes.start(Room::Anything).expect("it is next").0);
                    lanes.pay(1, Kind::Short, Held::Sample(5_000_000));
                    lanes.end(1);
                }
                _ => {
                    let (request, kind) = lanes.resume(Room::Anything).expect("it is next");
                    order.push(request);
                    lanes.pay(1, kind, Held::Sample(5_000_000));
                    lanes.come_back(1, request, kind);
                }
            }
        }
        assert_eq!(order, ["short", "short", "loop", "short"]);
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
            lanes.pay(1, Kind::Short, Held::Long(5_000_000));
            lanes.come_back(1, (), Kind::Long);
            let next = lanes.start(Room::Anything).map(|(request, _)| request);
            assert_eq!(next, (started == "2").then_some("2"));
        }
        lanes.push(&other, "other").expect("there is room");
        assert_eq!(lanes.start(Room::Anything).map(|(request, _)| request), Some("other"));
        assert!(lanes.resume(Room::Anything).is_some());
        lanes.pay(1, Kind::Long, Held::Long(6_000_000));
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
