//! A request's body on its way, and how many handlers may wait for one. Slow clients hold no thread: a handler starts when the body
//! is whole, when `AHEAD` bytes of it are there, or `PATIENCE` after the head; and only so many requests with an unfinished body
//! are started at once, whose handlers may wait for the rest. The others stay here and go on taking in what comes.
//!
//! What waits is polled with its connection or HTTP/2 stream and runs on whichever worker polls that.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::link::Link;
use crate::sync::lock;
use crate::timer::{Millis, TimerKey, millis};

/// What is held of a body, in bytes, before its handler starts.
const AHEAD: usize = 64 * 1024;

/// The same of all bodies of one connection: as much as a client may send without being asked for more (the window of HTTP/2).
const AHEAD_OF_CONNECTION: usize = 1024 * 1024;

/// How long a body may take before its handler starts without the rest.
const PATIENCE: Duration = Duration::from_millis(20);

/// A body, and what of it has arrived before anybody asked.
pub(crate) struct Upload {
    incoming: Incoming,
    /// Gives out what was taken in first, then these.
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// How it has ended.
    end: Option<Result<(), hyper::Error>>,
    link: Arc<Link>,
    /// The client sends nothing before it is asked to (RFC 9110 section 10.1.1): its handler is who asks, by reading.
    expects_continue: bool,
    /// Of a body whose handler was started before its end.
    place: Option<Place>,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, expects_continue: bool, link: Arc<Link>) -> Self {
        Self { incoming, data: Bytes::new(), trailers: None, end: None, link, expects_continue, place: None }
    }

    /// Takes in what there is. Ready: the handler may start; false if there is no room, even to wait.
    pub(crate) fn poll_start(&mut self, wait: &mut Wait, cx: &mut Context<'_>) -> Poll<bool> {
        let before = self.data.len();
        if self.place.is_some() || self.incoming.is_end_stream() || (!self.expects_continue && self.take_in(cx)) {
            return Poll::Ready(true);
        }
        let workers = &self.link.workers;
        let now = workers.reactor.timers.recent();
        let mut due = wait.patient_until;
        if self.expects_continue || self.data.len() >= AHEAD || now >= due {
            due = wait.until;
            match workers.uploads.enter(&mut wait.turn, cx.waker()) {
                Entry::Granted => {
                    self.place = Some(Place(self.link.clone()));
                    return Poll::Ready(true);
                }
                Entry::Later if now < due => {}
                Entry::Later | Entry::Never => return Poll::Ready(false),
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
        while self.end.is_none() && self.data.len() < AHEAD && self.link.ahead() < AHEAD_OF_CONNECTION {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return false,
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.hold(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
            if self.end.is_none() && self.incoming.is_end_stream() {
                self.end = Some(Ok(()));
            }
        }
        self.end.is_some()
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
        self.end.as_ref().map_or_else(|| self.incoming.is_end_stream(), Result::is_ok)
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
        let frame = match &mut self.end {
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => Pin::new(&mut self.incoming).poll_frame(cx),
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
        let held = self.data.len() as u64;
        let mut hint = if self.end.is_some() { SizeHint::with_exact(0) } else { self.incoming.size_hint() };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(hint.lower().saturating_add(held));
        hint
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.link.give_ahead(self.data.len());
    }
}

/// What a request needs while its handler may not start: one timer, and a turn once it waits for a place.
pub(crate) struct Wait {
    link: Arc<Link>,
    /// When its handler may start without the rest, and when it must be refused.
    patient_until: Millis,
    until: Millis,
    timer: Option<TimerKey>,
    turn: Option<u64>,
}

impl Wait {
    /// For a request that came `since` then, and is refused if it has to wait after `until`.
    pub(crate) fn new(link: Arc<Link>, since: Millis, until: Millis) -> Self {
        Self { link, patient_until: since.saturating_add(millis(PATIENCE)), until, timer: None, turn: None }
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
        if let Some(turn) = self.turn {
            self.link.workers.uploads.give_up(turn);
        }
    }
}

/// A place among the handlers that were started before their bodies had ended.
struct Place(Arc<Link>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.workers.uploads.leave();
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
    /// By turn: who has waited longest is woken first.
    waiting: BTreeMap<u64, Waker>,
    next_turn: u64,
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
    /// Half of the requests that may be open.
    pub(crate) fn new(open: usize, queued: usize) -> Self {
        Self { places: (open / 2).max(1), queued, state: Mutex::default() }
    }

    /// Takes a place, or a turn to wait for one.
    fn enter(&self, turn: &mut Option<u64>, waker: &Waker) -> Entry {
        let mut state = lock(&self.state);
        // Those before it that were woken will come; nobody else passes them.
        let before = turn.map_or(state.waiting.len(), |turn| state.waiting.range(..turn).count());
        if state.taken + before < self.places {
            state.taken += 1;
            if let Some(turn) = turn.take() {
                state.waiting.remove(&turn);
            }
            return Entry::Granted;
        }
        if turn.is_none() && state.waiting.len() >= self.queued {
            return Entry::Never;
        }
        let turn = *turn.get_or_insert_with(|| {
            state.next_turn += 1;
            state.next_turn
        });
        state.waiting.insert(turn, waker.clone());
        Entry::Later
    }

    fn leave(&self) {
        let mut state = lock(&self.state);
        state.taken -= 1;
        self.wake_next(state);
    }

    fn give_up(&self, turn: u64) {
        let mut state = lock(&self.state);
        state.waiting.remove(&turn);
        self.wake_next(state);
    }

    /// Wakes whoever may enter now.
    fn wake_next(&self, state: std::sync::MutexGuard<'_, State>) {
        let free = self.places.saturating_sub(state.taken);
        let wakers: Vec<_> = state.waiting.values().take(free).cloned().collect();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_open_requests_may_wait_for_bodies_and_the_next_comes_in_turn() {
        let uploads = Uploads::new(4, 2);
        let waker = Waker::noop();
        let mut turns = [None; 5];
        assert_eq!(uploads.enter(&mut turns[0], waker), Entry::Granted);
        assert_eq!(uploads.enter(&mut turns[1], waker), Entry::Granted);
        assert_eq!(uploads.enter(&mut turns[2], waker), Entry::Later);
        assert_eq!(uploads.enter(&mut turns[3], waker), Entry::Later);
        assert_eq!(uploads.enter(&mut turns[4], waker), Entry::Never);
        uploads.leave();
        assert_eq!(uploads.enter(&mut turns[3], waker), Entry::Later);
        assert_eq!(uploads.enter(&mut turns[4], waker), Entry::Never);
        assert_eq!(uploads.enter(&mut turns[2], waker), Entry::Granted);
        // One that goes away passes its turn on.
        assert_eq!(uploads.enter(&mut turns[4], waker), Entry::Later);
        uploads.leave();
        uploads.give_up(turns[3].expect("it waits"));
        assert_eq!(uploads.enter(&mut turns[4], waker), Entry::Granted);
    }
}
