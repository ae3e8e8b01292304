//! A request's body on its way, and how many handlers may wait for one. Slow clients hold no thread: a handler starts when the body
//! is whole, when `AHEAD` bytes of it are there, or `PATIENCE` after the head; and only so many requests with an unfinished body
//! are started at once, of all and of each lane, whose handlers may wait for the rest. The others stay here and go on taking in what comes.
//!
//! What waits is polled with its connection or HTTP/2 stream and runs on whichever worker polls that.

use std::collections::{BTreeMap, HashMap};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::after;
use crate::doubt::Doubt;
use crate::executor::Executor;
use crate::lanes::Lane;
use crate::link::Link;
use crate::sync::lock;
use crate::timer::{Millis, Sleep, TimerKey, millis};

/// What is held of a body, in bytes, before its handler starts.
const AHEAD: usize = 64 * 1024;

/// The same of all bodies of one connection: as much as a client may send without being asked for more (the window of HTTP/2).
const AHEAD_OF_CONNECTION: usize = 1024 * 1024;

/// How long a body may take before its handler starts without the rest.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a client of HTTP/2 may go on sending a body that nobody reads any more.
const LINGER: Duration = Duration::from_secs(2);

/// A body, and what of it has arrived before anybody asked.
pub(crate) struct Upload {
    source: Source,
    /// Gives out what was taken in first, then these.
    data: Bytes,
    trailers: Option<HeaderMap>,
    link: Arc<Link>,
    /// Of its request, counted on its connection; says something on HTTP/1.
    number: u64,
    /// The client sends nothing before it is asked to (RFC 9110 section 10.1.1): its handler is who asks, by reading.
    expects_continue: bool,
    /// Of a body whose handler was started before its end.
    place: Option<Place>,
}

/// Where more of it comes from.
enum Source {
    Open(Incoming),
    /// It has ended, and if not well it was so.
    Ended(Option<hyper::Error>),
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, expects_continue: bool, link: Arc<Link>) -> Self {
        let number = link.exchanges();
        let source = Source::Open(incoming);
        Self { source, data: Bytes::new(), trailers: None, link, number, expects_continue, place: None }
    }

    /// Takes in what there is. Ready: the handler may start, unless the request must be refused: its body is malformed (400), or there is no
    /// room for it, even to wait (503).
    pub(crate) fn poll_start(&mut self, wait: &mut Wait, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        let before = self.data.len();
        if self.place.is_some() || self.is_at_end() {
            return Poll::Ready(Ok(()));
        }
        if !self.expects_continue && self.take_in(cx) {
            return Poll::Ready(if self.is_malformed() { Err(StatusCode::BAD_REQUEST) } else { Ok(()) });
        }
        let workers = &self.link.workers;
        let now = workers.reactor.timers.recent();
        let mut due = wait.patient_until;
        if self.expects_continue || self.data.len() >= AHEAD || now >= due {
            due = wait.until;
            let Some(lane) = &wait.lane else { return Poll::Ready(Ok(())) };
            match workers.uploads.enter(lane, &mut wait.turn, cx.waker()) {
                Entry::Granted => {
                    self.place = Some(Place { link: self.link.clone(), lane: lane.id });
                    return Poll::Ready(Ok(()));
                }
                Entry::Later if now < due => {}
                Entry::Later | Entry::Never => return Poll::Ready(Err(StatusCode::SERVICE_UNAVAILABLE)),
            }
        }
        if self.data.len() > before {
            // There may be more already, behind what hyper hands over at once: no timer yet.
            cx.waker().wake_by_ref();
        } else {
            wait.set_timer(due, cx.waker());
        }
        Poll::Pending
    }

    /// Takes in what has arrived, as far as there is room. True: that is all.
    fn take_in(&mut self, cx: &mut Context<'_>) -> bool {
        while self.data.len() < AHEAD && self.link.ahead() < AHEAD_OF_CONNECTION {
            let Source::Open(incoming) = &mut self.source else { break };
            let end = match poll_open(incoming, &self.link.doubt, self.number, cx) {
                Poll::Pending => return false,
                Poll::Ready(None) => Some(None),
                Poll::Ready(Some(Err(error))) => Some(Some(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    let end = incoming.is_end_stream().then_some(None);
                    match frame.into_data() {
                        Ok(data) => self.hold(data),
                        Err(frame) => self.trailers = frame.into_trailers().ok(),
                    }
                    end
                }
            };
            if let Some(error) = end {
                self.source = Source::Ended(error);
            }
        }
        matches!(self.source, Source::Ended(_))
    }

    /// Of one that was taken in: its framing is none.
    fn is_malformed(&self) -> bool {
        let is_broken =
            matches!(&self.source, Source::Ended(Some(error)) if kind_of(error) == io::ErrorKind::InvalidData);
        is_broken || self.trailers.as_ref().is_some_and(|trailers| self.is_swallowed(trailers))
    }

    /// Whether hyper took what follows the body for trailers: it does after a bare LF in place of the last CRLF, and finds none in it.
    pub(crate) fn is_swallowed(&self, trailers: &HeaderMap) -> bool {
        trailers.is_empty() && !self.link.speaks_http2()
    }

    fn hold(&mut self, data: Bytes) {
        self.link.hold_ahead(data.len());
        let held = std::mem::take(&mut self.data);
        self.data = if held.is_empty() {
            data
        } else {
            // One piece, since each of many small ones would keep a buffer of hyper's. Its room doubles, so it is not copied for each.
            let mut held = held.try_into_mut().unwrap_or_else(|held| BytesMut::from(&held[..]));
            held.extend_from_slice(&data);
            held.freeze()
        };
    }

    /// All of the body, if it is there, without trailers and not longer than `max`.
    pub(crate) fn take_whole(&mut self, max: u64) -> Option<Bytes> {
        let is_whole = self.is_at_end() && self.trailers.is_none() && self.data.len() as u64 <= max;
        is_whole.then(|| self.take_data())
    }

    fn is_at_end(&self) -> bool {
        match &self.source {
            Source::Open(incoming) => incoming.is_end_stream(),
            Source::Ended(error) => error.is_none(),
        }
    }

    fn take_data(&mut self) -> Bytes {
        self.link.give_ahead(self.data.len());
        std::mem::take(&mut self.data)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.take_data()))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = match &mut self.source {
            Source::Open(incoming) => poll_open(incoming, &self.link.doubt, self.number, cx),
            Source::Ended(error) => Poll::Ready(error.take().map(Err)),
        };
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || (self.place.is_some() && self.is_at_end()) {
            self.place = None;
        }
        frame
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.is_at_end() && self.data.is_empty() && self.trailers.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let hint = match &self.source {
            Source::Open(incoming) => incoming.size_hint(),
            Source::Ended(_) => SizeHint::with_exact(0),
        };
        after(self.data.len(), &hint)
    }
}

/// The next of a body, the end of which is noted.
fn poll_open(
    incoming: &mut Incoming,
    doubt: &Doubt,
    number: u64,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let frame = ready!(Pin::new(incoming).poll_frame(cx));
    if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
        doubt.end(number, matches!(frame, Some(Ok(_))));
    }
    Poll::Ready(frame)
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.link.give_ahead(self.data.len());
        if let Source::Open(incoming) = std::mem::replace(&mut self.source, Source::Ended(None)) {
            self.link.doubt.leave(self.number);
            discard(incoming, &self.link);
        }
    }
}

/// Takes in what a client of HTTP/2 goes on sending although its request is answered. Else it would be told to stop by RST_STREAM right
/// behind the answer, which it must not discard for that (RFC 9113 section 8.1), but some do (curl before 8).
pub(crate) fn discard(mut incoming: Incoming, link: &Arc<Link>) {
    if !link.speaks_http2() || incoming.is_end_stream() {
        return;
    }
    let until = Sleep::until(Arc::downgrade(&link.workers), Instant::now() + LINGER);
    Executor::of(&link.workers).spawn(async move {
        let mut until = pin!(until);
        poll_fn(|cx| {
            while let Poll::Ready(frame) = Pin::new(&mut incoming).poll_frame(cx) {
                if !matches!(frame, Some(Ok(_))) {
                    return Poll::Ready(());
                }
            }
            until.as_mut().poll(cx)
        })
        .await;
    });
}

/// Malformed framing is `InvalidData`; whatever else ends a body early is `ConnectionAborted`: closed, reset, ended too soon.
pub(crate) fn kind_of(error: &hyper::Error) -> io::ErrorKind {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let kind = error.downcast_ref().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
            return io::ErrorKind::InvalidData;
        }
        source = error.source();
    }
    io::ErrorKind::ConnectionAborted
}

/// What a request needs while its handler may not start: one timer, and a turn once it waits for a place.
pub(crate) struct Wait {
    link: Arc<Link>,
    /// Where it needs a place; none if no handler will wait for the rest.
    lane: Option<Lane>,
    /// When its handler may start without the rest, and when it must be refused.
    patient_until: Millis,
    until: Millis,
    timer: Option<TimerKey>,
    turn: Option<u64>,
}

impl Wait {
    /// For a request that came `since` then, and is refused if it has to wait after `until`.
    pub(crate) fn new(link: Arc<Link>, lane: Option<Lane>, since: Millis, until: Millis) -> Self {
        Self { link, lane, patient_until: since.saturating_add(millis(PATIENCE)), until, timer: None, turn: None }
    }

    fn set_timer(&mut self, due: Millis, waker: &Waker) {
        if self.timer.is_none_or(|timer| timer.at() != due) {
            self.cancel_timer();
            self.timer = Some(self.link.workers.add_timer_at(due, waker.clone()));
        }
    }

    fn cancel_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.link.workers.remove_timer(timer);
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.cancel_timer();
        if let (Some(turn), Some(lane)) = (self.turn, &self.lane) {
            self.link.workers.uploads.give_up(lane.id, turn);
        }
    }
}

/// A place among the handlers that were started before their bodies had ended.
struct Place {
    link: Arc<Link>,
    lane: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.link.workers.uploads.leave(self.lane);
    }
}

/// How many handlers may be started before their bodies have ended, and who waits for that.
pub(crate) struct Uploads {
    /// Places, and requests that may wait for one.
    places: usize,
    queued: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: usize,
    waiting: usize,
    /// Those of which there is something.
    lanes: HashMap<u64, OfLane>,
    next_turn: u64,
}

#[derive(Default)]
struct OfLane {
    places: usize,
    taken: usize,
    /// By turn: who has waited longest is woken first.
    waiting: BTreeMap<u64, Waker>,
}

impl OfLane {
    fn free(&self) -> usize {
        self.places.saturating_sub(self.taken)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Granted,
    /// The waker will be woken.
    Later,
    /// Too many wait.
    Never,
}

impl Uploads {
    /// Half of the requests that may be open; and half of those of each lane.
    pub(crate) fn new(open: usize, queued: usize) -> Self {
        Self { places: half(open), queued, state: Mutex::default() }
    }

    /// Takes a place, or a turn to wait for one.
    fn enter(&self, lane: &Lane, turn: &mut Option<u64>, waker: &Waker) -> Entry {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.lanes.entry(lane.id).or_default().places = half(lane.in_flight);
        // Those before it that were woken will come; nobody else passes them, but for those whose lane is full.
        let until = turn.unwrap_or(u64::MAX);
        let before = |of: &OfLane| of.waiting.range(..until).take(of.free()).count();
        let before_all: usize = state.lanes.values().map(before).sum();
        let of_lane = state.lanes.entry(lane.id).or_default();
        if before(of_lane) < of_lane.free() && state.taken + before_all < self.places {
            state.taken += 1;
            of_lane.taken += 1;
            if let Some(turn) = turn.take() {
                of_lane.waiting.remove(&turn);
                state.waiting -= 1;
            }
            return Entry::Granted;
        }
        let is_full = state.waiting >= self.queued || of_lane.waiting.len() >= lane.queue.max(lane.in_flight);
        if turn.is_none() && is_full {
            state.forget(lane.id);
            return Entry::Never;
        }
        let turn = *turn.get_or_insert_with(|| {
            state.next_turn += 1;
            state.waiting += 1;
            state.next_turn
        });
        of_lane.waiting.insert(turn, waker.clone());
        Entry::Later
    }

    fn leave(&self, lane: u64) {
        self.change(lane, |state, of_lane| {
            state.taken -= 1;
            of_lane.taken -= 1;
        });
    }

    fn give_up(&self, lane: u64, turn: u64) {
        self.change(lane, |state, of_lane| state.waiting -= usize::from(of_lane.waiting.remove(&turn).is_some()));
    }

    /// Changes what is taken or waited for, and wakes whoever may enter now.
    fn change(&self, lane: u64, change: impl FnOnce(&mut State, &mut OfLane)) {
        let mut state = lock(&self.state);
        if let Some(mut of_lane) = state.lanes.remove(&lane) {
            change(&mut state, &mut of_lane);
            state.lanes.insert(lane, of_lane);
            state.forget(lane);
        }
        let free = self.places.saturating_sub(state.taken);
        let mut next: Vec<_> = state.lanes.values().flat_map(|of| of.waiting.iter().take(of.free())).collect();
        next.sort_unstable_by_key(|(turn, _)| **turn);
        let wakers: Vec<_> = next.into_iter().take(free).map(|(_, waker)| waker.clone()).collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// If there is nothing left of it.
    fn forget(&mut self, lane: u64) {
        if self.lanes.get(&lane).is_some_and(|of_lane| of_lane.taken == 0 && of_lane.waiting.is_empty()) {
            self.lanes.remove(&lane);
        }
    }
}

fn half(of: usize) -> usize {
    (of / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Lane = Lane { id: 0, in_flight: usize::MAX, kept: usize::MAX, queue: usize::MAX, queue_timeout: None };

    #[test]
    fn half_of_the_open_requests_may_wait_for_bodies_and_the_next_comes_in_turn() {
        let uploads = Uploads::new(4, 2);
        let waker = Waker::noop();
        let mut turns = [None; 5];
        assert_eq!(uploads.enter(&ANY, &mut turns[0], waker), Entry::Granted);
        assert_eq!(uploads.enter(&ANY, &mut turns[1], waker), Entry::Granted);
        assert_eq!(uploads.enter(&ANY, &mut turns[2], waker), Entry::Later);
        assert_eq!(uploads.enter(&ANY, &mut turns[3], waker), Entry::Later);
        assert_eq!(uploads.enter(&ANY, &mut turns[4], waker), Entry::Never);
        uploads.leave(0);
        assert_eq!(uploads.enter(&ANY, &mut turns[3], waker), Entry::Later);
        assert_eq!(uploads.enter(&ANY, &mut turns[4], waker), Entry::Never);
        assert_eq!(uploads.enter(&ANY, &mut turns[2], waker), Entry::Granted);
        // One that goes away passes its turn on.
        assert_eq!(uploads.enter(&ANY, &mut turns[4], waker), Entry::Later);
        uploads.leave(0);
        uploads.give_up(0, turns[3].expect("it waits"));
        assert_eq!(uploads.enter(&ANY, &mut turns[4], waker), Entry::Granted);
    }

    #[test]
    fn half_of_a_lane_may_wait_for_bodies_and_those_of_others_pass_it() {
        let uploads = Uploads::new(8, 3);
        let waker = Waker::noop();
        let (narrow, single) =
            (Lane { id: 1, in_flight: 4, queue: 0, ..ANY }, Lane { id: 2, in_flight: 1, queue: 0, ..ANY });
        let mut turns = [None; 6];
        assert_eq!(uploads.enter(&narrow, &mut turns[0], waker), Entry::Granted);
        assert_eq!(uploads.enter(&narrow, &mut turns[0], waker), Entry::Granted);
        assert_eq!(uploads.enter(&narrow, &mut turns[1], waker), Entry::Later);
        assert_eq!(uploads.enter(&narrow, &mut turns[2], waker), Entry::Later);
        assert_eq!(uploads.enter(&single, &mut turns[3], waker), Entry::Granted);
        // One may wait for the one that is in flight.
        assert_eq!(uploads.enter(&single, &mut turns[4], waker), Entry::Later);
        assert_eq!(uploads.enter(&single, &mut turns[5], waker), Entry::Never);
        assert_eq!(uploads.enter(&ANY, &mut turns[5], waker), Entry::Granted);
        // All places are taken now: the next is for whoever waits longest of those whose lane has room.
        let mut last = None;
        assert_eq!(uploads.enter(&ANY, &mut last, waker), Entry::Never);
        uploads.leave(2);
        assert_eq!(uploads.enter(&narrow, &mut turns[1], waker), Entry::Later);
        assert_eq!(uploads.enter(&single, &mut turns[4], waker), Entry::Granted);
        uploads.leave(1);
        assert_eq!(uploads.enter(&narrow, &mut turns[2], waker), Entry::Later);
        assert_eq!(uploads.enter(&narrow, &mut turns[1], waker), Entry::Granted);
    }

    #[test]
    fn a_lane_of_which_nothing_is_left_is_forgotten() {
        let uploads = Uploads::new(2, 1);
        let waker = Waker::noop();
        for id in 0..10 {
            let mut turns = [None; 3];
            let lane = Lane { id, ..ANY };
            assert_eq!(uploads.enter(&lane, &mut turns[0], waker), Entry::Granted);
            assert_eq!(uploads.enter(&lane, &mut turns[1], waker), Entry::Later);
            assert_eq!(uploads.enter(&Lane { id: 99, ..ANY }, &mut turns[2], waker), Entry::Never);
            uploads.leave(id);
            uploads.give_up(id, turns[1].expect("it waits"));
        }
        let state = lock(&uploads.state);
        assert_eq!((state.taken, state.waiting, state.lanes.len()), (0, 0, 0));
    }
}
