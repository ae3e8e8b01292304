//! One connection: tells the protocol by its first bytes, drives hyper, and owns what hyper's server does not do: three
//! deadlines (idle, head, stalled write), the 408, the lingering close, the end of an HTTP/2 connection that was told to end, and
//! cutting an exchange whose client is gone.
//!
//! It runs on whichever worker is free, one at a time (`RunState`), and never runs a handler.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::StatusCode;
use mio::Token;

use crate::counts::Event;
use crate::exchange::{ExchangeService, contained};
use crate::executor::Executor;
use crate::frames::{Frames, PREFACE};
use crate::http::TlsInfo;
use crate::link::{Link, last_words};
use crate::proxy::{self, Header, NoHeader};
use crate::reactor::SHORT_READ;
use crate::run_state::RunState;
use crate::server::{Protocols, Shared};
use crate::slot::Gone;
use crate::stream::Stream;
use crate::sync::lock;
use crate::timer::{Millis, TimerKey, millis};
use crate::workers::Task;

/// How long what a client still sends is read and thrown away after our last answer, so that a reset does not destroy it (RFC 9112
/// section 9.6): in all, and for each so many bytes.
const LINGER_TIME: Duration = Duration::from_secs(30);
const LINGER_STEP_TIME: Duration = Duration::from_secs(5);
const LINGER_STEP: u64 = 16 * 1024;

/// In place of both on a server that drains.
pub(crate) const LAST_LINGER: Duration = Duration::from_secs(2);

/// An HTTP/1 connection that is idle for so long gives hyper's buffers back, which are nearly all that it costs.
const SHED_TIME: Duration = Duration::from_millis(250);

/// How long an idle connection stays open while nothing is under way on a server that drains. A request that was sent before the
/// client could know gets its answer, and with that the news.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// How long a client's new streams are taken after the first GOAWAY, which names none: those that were on their way (RFC 9113
/// section 6.8). It can make that shorter, with an answer to hyper's PING, but not longer.
const GOODBYE_TIME: Duration = Duration::from_secs(2);

type Http1 = hyper::server::conn::http1::Connection<Stream, ExchangeService>;
type Http2 = hyper::server::conn::http2::Connection<Stream, ExchangeService, Executor>;

pub(crate) struct Connection {
    state: RunState,
    link: Arc<Link>,
    shared: Arc<Shared>,
    token: Token,
    /// Locked by the runner only.
    inner: Mutex<Inner>,
    /// Be idle no longer than [`QUIET`]. Set by shutdown.
    hushed: AtomicBool,
    /// Close now. Set by shutdown.
    cut: AtomicBool,
}

struct Inner {
    protocol: Protocol,
    /// What was being waited for after the last run, and since when.
    waiting: Option<(Waiting, Millis)>,
    timer: Option<TimerKey>,
    /// When an HTTP/2 connection was told to end.
    told_to_end: Option<Millis>,
    /// It was given its time after that, and takes no new streams.
    parted: bool,
    /// At its end the client had not taken what there was to send.
    unread: bool,
    /// An answer's body has failed, or the handshake.
    failed: bool,
}

enum Protocol {
    /// A proxy has to say who its client is, and has said this.
    Announcement(Vec<u8>),
    /// Of TLS.
    Handshake,
    /// What was read so far does not tell.
    Unknown(Vec<u8>),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    /// We have said all, and read what the peer still sends.
    Lingering {
        read: u64,
        until: Millis,
    },
    Closed,
}

/// What a connection waits for that does not move, where that is bounded. A count tells one wait from the next of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// The end of what comes before the first request: a proxy's announcement, the TLS handshake.
    Handshake,
    /// The first byte of a request.
    Idle { exchanges: u64 },
    /// The rest of a head.
    Head { exchanges: u64 },
    /// Room to write.
    Write { written: u64 },
    /// The peer's end, after ours.
    Linger { steps: u64 },
    /// The client's end of an HTTP/2 connection that was told to end and on which nothing is open.
    Goodbye,
    /// That hyper gets rid of what it still holds of answers, after that.
    Rest,
}

enum Moved {
    Pending,
    Again,
    Closed,
}

impl Connection {
    /// `is_announced`: by a proxy, which says in front of everything else who its client is.
    pub(crate) fn new(link: Arc<Link>, shared: Arc<Shared>, token: Token, is_announced: bool) -> Arc<Self> {
        let inner = Inner {
            protocol: if is_announced { Protocol::Announcement(Vec::new()) } else { Protocol::first(&link) },
            waiting: None,
            timer: None,
            told_to_end: None,
            parted: false,
            unread: false,
            failed: false,
        };
        let connection = Arc::new(Self {
            state: RunState::idle(),
            link,
            shared,
            token,
            inner: Mutex::new(inner),
            hushed: AtomicBool::new(false),
            cut: AtomicBool::new(false),
        });
        connection.link.connect(&connection);
        connection
    }

    pub(crate) fn notify(self: &Arc<Self>) {
        let task: Arc<dyn Task> = self.clone();
        self.link.workers.notify(&task);
    }

    /// Moves as far as it can.
    fn advance(&self, inner: &mut Inner, cx: &mut Context<'_>) -> Moved {
        if self.cut.load(Ordering::SeqCst) || self.link.ready.gone.load(Ordering::SeqCst) {
            return Moved::Closed;
        }
        // On HTTP/1 the next answer tells, and only then may the connection end (`Link::says_close`).
        if matches!(inner.protocol, Protocol::Http2(_)) && inner.told_to_end.is_none() && self.link.is_spent() {
            self.tell_to_end(inner);
        }
        let result = match &mut inner.protocol {
            Protocol::Announcement(read) => {
                return self.read_announcement(read).map_or_else(
                    |moved| moved,
                    |()| {
                        inner.protocol = Protocol::first(&self.link);
                        Moved::Again
                    },
                );
            }
            Protocol::Handshake => match self.link.poll_handshake() {
                Poll::Pending => return Moved::Pending,
                Poll::Ready(Ok(())) => {
                    inner.protocol = Protocol::Unknown(Vec::new());
                    return Moved::Again;
                }
                Poll::Ready(Err(error)) => {
                    log::debug!("{}: the TLS handshake failed: {error}", self.peer());
                    self.link.note(Event::HandshakeFailed);
                    inner.failed = true;
                    return self.end(inner);
                }
            },
            Protocol::Unknown(read) => {
                return self.tell_protocol(read).map_or_else(
                    |moved| moved,
                    |protocol| {
                        inner.protocol = protocol;
                        Moved::Again
                    },
                );
            }
            Protocol::Http1(http) => {
                let mut http = Pin::new(http.as_mut());
                if self.link.doubt.is_certain() {
                    http.as_mut().graceful_shutdown();
                }
                match http.poll(cx) {
                    // All that is answered has gone out.
                    Poll::Pending
                        if self.link.doubt.has_refused() && !self.link.write_blocked.load(Ordering::Relaxed) =>
                    {
                        Poll::Ready(Ok(()))
                    }
                    poll => poll,
                }
            }
            Protocol::Http2(http) => Pin::new(http.as_mut()).poll(cx),
            Protocol::Lingering { read, .. } => return self.linger(read),
            Protocol::Closed => return Moved::Closed,
        };
        match result {
            Poll::Pending => Moved::Pending,
            Poll::Ready(Ok(())) => self.end(inner),
            Poll::Ready(Err(error)) => {
                self.note_error(&error);
                self.tell_fault(inner.told_to_end.is_some());
                // What hyper has answered itself, it has ended itself.
                inner.failed = true;
                if error.is_user() && self.link.is_http10.load(Ordering::Relaxed) {
                    // A body that failed, of a length that perhaps only our end of the connection tells: `close` resets it.
                    return Moved::Closed;
                }
                self.end(inner)
            }
        }
    }

    /// Reads what a proxy says of its client, and not a byte more.
    fn read_announcement(&self, read: &mut Vec<u8>) -> Result<(), Moved> {
        loop {
            match proxy::read(read) {
                Ok(Header::Needs(missing)) => {
                    match self.link.poll_read_plain(missing, |bytes| read.extend_from_slice(bytes)) {
                        Poll::Pending => return Err(Moved::Pending),
                        Poll::Ready(Ok(n)) if n > 0 => {}
                        Poll::Ready(_) => return Err(Moved::Closed),
                    }
                }
                Ok(Header::Is(None)) => return Ok(()),
                Ok(Header::Is(Some((client, ours)))) if self.link.announce(client, ours) => return Ok(()),
                Ok(Header::Is(Some(_))) => {
                    self.link.note(Event::MaxConnectionsPerPeer);
                    return Err(Moved::Closed);
                }
                Err(NoHeader) => {
                    self.link.note(Event::ProxyRefused);
                    return Err(Moved::Closed);
                }
            }
        }
    }

    /// Reads until the first bytes tell HTTP/2 from HTTP/1.
    fn tell_protocol(&self, read: &mut Vec<u8>) -> Result<Protocol, Moved> {
        let mut allowed = self.shared.protocols;
        if let Some(agreed) = self.link.info().tls().and_then(TlsInfo::protocol) {
            let http2 = agreed == b"h2";
            allowed = Protocols { http1: !http2, http2 };
        }
        // A connection that was idle has spoken HTTP/1 before.
        allowed.http2 &= self.link.exchanges() == 0 || !allowed.http1;
        while allowed.http1 && PREFACE.starts_with(read) && read.len() < PREFACE.len() {
            match self.link.poll_read_with(SHORT_READ, |bytes| read.extend_from_slice(bytes)) {
                Poll::Pending => return Err(Moved::Pending),
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Err(Moved::Closed),
            }
            if !allowed.http2 {
                break;
            }
        }
        let http2 = allowed.http2 && (read.starts_with(PREFACE) || !allowed.http1);
        let frames = http2.then(|| Frames::new(self.link.limits.max_control_frames));
        let stream = Stream::new(self.link.clone(), std::mem::take(read), frames);
        let service = ExchangeService(self.link.clone());
        Ok(if http2 {
            self.link.is_http2();
            Protocol::Http2(Box::new(self.shared.http2.serve_connection(stream, service)))
        } else {
            Protocol::Http1(Box::new(self.shared.http1.serve_connection(stream, service)))
        })
    }

    /// Says GOAWAY for what hyper let pass, unless the client has been told before: a second one must not name a later stream. hyper
    /// has written all that it began, or the socket takes nothing more.
    fn tell_fault(&self, told_to_end: bool) {
        if let Some(fault) = self.link.fault.get() {
            log::debug!("{}: {fault}", self.peer());
            self.link.note(if fault.is_flood() { Event::Flood } else { Event::Malformed });
            if !told_to_end && !self.link.write_blocked.load(Ordering::Relaxed) {
                self.link.write_now(&fault.go_away());
            }
        }
    }

    /// Ends our side. What the peer still sends is read for a while and thrown away, lest a reset destroy our last answer.
    fn end(&self, inner: &mut Inner) -> Moved {
        inner.unread = self.link.write_blocked.load(Ordering::Relaxed);
        let until = self.link.workers.reactor.timers.recent().saturating_add(millis(LINGER_TIME));
        inner.protocol = Protocol::Lingering { read: 0, until };
        self.link.lost();
        if !inner.failed {
            self.link.say_goodbye();
        }
        self.link.shut_write();
        self.shared.lingers();
        Moved::Again
    }

    fn linger(&self, read: &mut u64) -> Moved {
        while self.link.take_call() {
            match self.link.poll_read_plain(usize::MAX, |_| {}) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => *read += n as u64,
                Poll::Ready(_) => return Moved::Closed,
            }
        }
        Moved::Pending
    }

    /// Says GOAWAY; hyper adds a PING, and once that is answered takes no new streams and ends with those it has.
    fn tell_to_end(&self, inner: &mut Inner) {
        if let Protocol::Http2(http) = &mut inner.protocol {
            inner.told_to_end = Some(self.link.workers.reactor.timers.recent());
            Pin::new(http.as_mut()).graceful_shutdown();
        }
    }

    /// What is being waited for, if that is bounded.
    fn waiting(&self, inner: &Inner) -> Option<Waiting> {
        let open = self.link.has_open();
        let exchanges = self.link.exchanges();
        match inner.protocol {
            Protocol::Lingering { read, .. } => Some(Waiting::Linger { steps: read / LINGER_STEP }),
            Protocol::Closed => None,
            Protocol::Announcement(_) | Protocol::Handshake => Some(Waiting::Handshake),
            _ if self.link.write_blocked.load(Ordering::Relaxed) => {
                Some(Waiting::Write { written: self.link.written() })
            }
            Protocol::Http2(_) if self.link.in_block.load(Ordering::Relaxed) => Some(Waiting::Head { exchanges }),
            _ if open => None,
            Protocol::Http2(_) if inner.parted && !self.link.parts.load(Ordering::Relaxed) => Some(Waiting::Rest),
            Protocol::Http2(_) if inner.told_to_end.is_some() => Some(Waiting::Goodbye),
            Protocol::Http2(_) => Some(Waiting::Idle { exchanges }),
            Protocol::Unknown(_) | Protocol::Http1(_) if self.link.in_head.load(Ordering::Relaxed) => {
                Some(Waiting::Head { exchanges })
            }
            Protocol::Unknown(_) | Protocol::Http1(_) => Some(Waiting::Idle { exchanges }),
        }
    }

    fn timeout(&self, waiting: Waiting) -> Duration {
        let limits = &self.link.limits;
        match waiting {
            Waiting::Idle { .. } if self.hushed.load(Ordering::SeqCst) => limits.idle_timeout.min(QUIET),
            Waiting::Handshake if self.hushed.load(Ordering::SeqCst) => limits.handshake_timeout.min(QUIET),
            Waiting::Handshake => limits.handshake_timeout,
            Waiting::Idle { .. } => limits.idle_timeout,
            Waiting::Head { .. } => limits.head_timeout,
            Waiting::Write { .. } | Waiting::Rest => limits.write_timeout,
            Waiting::Linger { .. } if self.shared.drains() => LAST_LINGER,
            Waiting::Linger { .. } => LINGER_STEP_TIME,
            Waiting::Goodbye => GOODBYE_TIME,
        }
    }

    /// It did not move. If it has not for too long, it ends; else a timer is set.
    fn on_deadline(&self, inner: &mut Inner) -> Moved {
        let now = self.link.workers.reactor.timers.recent();
        let parts = inner.told_to_end.filter(|_| !inner.parted).map(|at| at.saturating_add(millis(GOODBYE_TIME)));
        if parts.is_some_and(|parts| parts <= now) {
            inner.parted = true;
            self.link.parts.store(true, Ordering::Relaxed);
            return Moved::Again;
        }
        let Some(waiting) = self.waiting(inner) else {
            inner.waiting = None;
            if let Some(parts) = parts {
                self.set_timer(inner, now, parts);
            }
            return Moved::Pending;
        };
        let since = inner.waiting.filter(|(before, _)| *before == waiting).map_or(now, |(_, since)| since);
        inner.waiting = Some((waiting, since));
        let mut due = since.saturating_add(millis(self.timeout(waiting)));
        if let Protocol::Lingering { until, .. } = inner.protocol {
            due = due.min(until);
        }
        if now < due {
            due = parts.map_or(due, |parts| parts.min(due));
            let shed = since.saturating_add(millis(SHED_TIME));
            if matches!((waiting, &inner.protocol), (Waiting::Idle { .. }, Protocol::Http1(_))) && shed < due {
                if now >= shed && inner.shed() {
                    self.link.in_head.store(true, Ordering::Relaxed);
                    return Moved::Again;
                }
                self.set_timer(inner, now, if now < shed { shed } else { due });
            } else {
                self.set_timer(inner, now, due);
            }
            return Moved::Pending;
        }
        match (waiting, &inner.protocol) {
            (Waiting::Head { .. }, Protocol::Http2(_)) => {
                log::debug!("{}: a header block did not arrive in time", self.peer());
                self.link.note(Event::HeadTimeout);
                self.link.gone.set(Gone::TooSlow);
                self.end(inner)
            }
            (Waiting::Head { .. }, _) => {
                log::debug!("{}: 408, the head did not arrive in time", self.peer());
                self.link.note(Event::HeadTimeout);
                self.link.write_now(&last_words(StatusCode::REQUEST_TIMEOUT, ""));
                self.end(inner)
            }
            (Waiting::Idle { .. }, Protocol::Http2(_)) => {
                self.tell_to_end(inner);
                Moved::Again
            }
            // Its last answer is long gone.
            (Waiting::Idle { .. }, _) if self.hushed.load(Ordering::SeqCst) => {
                self.link.say_goodbye();
                Moved::Closed
            }
            (Waiting::Idle { .. }, _) => self.end(inner),
            (Waiting::Write { .. } | Waiting::Rest, _) => {
                log::debug!("{}: the client stopped reading", self.peer());
                self.link.note_slow();
                self.link.gone.set(Gone::TooSlow);
                Moved::Closed
            }
            (Waiting::Handshake, Protocol::Announcement(_)) => {
                self.link.note(Event::ProxyRefused);
                Moved::Closed
            }
            (Waiting::Handshake, _) => {
                log::debug!("{}: the TLS handshake took too long", self.peer());
                self.link.note(Event::HandshakeTimeout);
                Moved::Closed
            }
            (Waiting::Linger { .. } | Waiting::Goodbye, _) => Moved::Closed,
        }
    }

    /// An earlier timer is left as it is: when it fires, the next is set. So a busy connection hardly ever sets one.
    fn set_timer(&self, inner: &mut Inner, now: Millis, due: Millis) {
        if inner.timer.is_some_and(|timer| now < timer.at() && timer.at() <= due) {
            return;
        }
        if let Some(timer) = inner.timer.take() {
            self.link.workers.remove_timer(timer);
        }
        if let Some(this) = self.link.connection() {
            inner.timer = Some(self.link.workers.add_timer_at(due, Waker::from(this)));
        }
    }

    fn close(&self, inner: &mut Inner) {
        if matches!(inner.protocol, Protocol::Closed) {
            return;
        }
        let lingered = matches!(inner.protocol, Protocol::Lingering { .. });
        let write_blocked = self.link.write_blocked.load(Ordering::Relaxed);
        // Once it lingers, what is blocked is no more than the goodbye of TLS.
        let is_unread = if lingered { inner.unread } else { write_blocked };
        let is_unfinished = inner.failed || self.link.has_open() || write_blocked;
        let is_open_ended = matches!(inner.protocol, Protocol::Http1(_)) && self.link.is_http10.load(Ordering::Relaxed);
        let protocol = std::mem::replace(&mut inner.protocol, Protocol::Closed);
        if let Some(timer) = inner.timer.take() {
            self.link.workers.remove_timer(timer);
        }
        self.link.workers.reactor.remove(self.token);
        if is_unread || (is_open_ended && is_unfinished) {
            self.link.reset();
        } else {
            if !is_unfinished {
                self.link.say_goodbye();
            }
            self.link.shut();
        }
        self.shared.disconnected(lingered);
        // Last, as it runs code of others: this drops service futures and bodies, which tells handlers that the client is gone.
        drop(protocol);
        self.link.lost();
    }

    fn note_error(&self, error: &hyper::Error) {
        // hyper has answered what could be answered: 400, 414 or 431.
        if error.is_parse() {
            log::info!("{}: refused a malformed request: {error}", self.peer());
            return self.link.note(Event::Malformed);
        }
        log::debug!("{}: connection ended: {error}", self.peer());
        // What h2 has ended the connection for by itself.
        let of_h2 = std::error::Error::source(error).and_then(|error| error.downcast_ref::<h2::Error>());
        if let Some(reason) = of_h2.filter(|error| error.is_library()).and_then(h2::Error::reason) {
            let is_flood = reason == h2::Reason::ENHANCE_YOUR_CALM;
            self.link.note(if is_flood { Event::Flood } else { Event::Malformed });
        }
    }

    fn peer(&self) -> String {
        self.link.info().peer_addr().map_or_else(|| "a client".to_owned(), |peer| peer.to_string())
    }
}

impl Protocol {
    /// What a connection begins with.
    fn first(link: &Link) -> Self {
        if link.has_session() { Self::Handshake } else { Self::Unknown(Vec::new()) }
    }
}

impl Inner {
    /// Drops hyper's connection, between two requests: the next byte makes a new one. True: there is one already, of a head that began in
    /// the same read as the request before ended; it does not wait to be polled.
    fn shed(&mut self) -> bool {
        match std::mem::replace(&mut self.protocol, Protocol::Closed) {
            Protocol::Http1(http) => {
                let read: Vec<u8> = http.into_parts().read_buf.into();
                let has_begun = !read.is_empty();
                self.protocol = Protocol::Unknown(read);
                has_begun
            }
            protocol => {
                self.protocol = protocol;
                false
            }
        }
    }
}

impl Task for Connection {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn run(self: Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut cx = Context::from_waker(&waker);
        let mut inner = lock(&self.inner);
        self.link.refill_budget();
        loop {
            let who = std::fmt::from_fn(|f| write!(f, "{}: a response body", self.peer()));
            let moved = contained(who, || self.advance(&mut inner, &mut cx)).unwrap_or(Moved::Closed);
            self.link.answers.tell_let_go();
            match if matches!(moved, Moved::Pending) { self.on_deadline(&mut inner) } else { moved } {
                Moved::Again => {}
                Moved::Pending => return,
                Moved::Closed => return self.close(&mut inner),
            }
        }
    }

    fn drain(self: Arc<Self>) {
        self.link.spend();
        self.notify();
    }

    fn is_busy(&self) -> bool {
        let link = &self.link;
        [&link.in_head, &link.in_block, &link.write_blocked].iter().any(|is| is.load(Ordering::Relaxed))
            || link.has_open()
    }

    fn hush(self: Arc<Self>) {
        self.hushed.store(true, Ordering::SeqCst);
        self.notify();
    }

    fn cut(self: Arc<Self>) {
        self.link.gone.set(Gone::Stopped);
        self.cut.store(true, Ordering::SeqCst);
        self.notify();
    }
}

impl Wake for Connection {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}
