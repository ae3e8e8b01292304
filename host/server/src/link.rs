//! What the parts of one connection share: the socket (as hyper's `Read` and `Write`), its readiness, its counters, and where
//! requests go. `connection.rs` owns the protocol on top.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use hyper::rt::ReadBufCursor;

use crate::connection::Connection;
use crate::counts::Event;
use crate::exchange::Handler;
use crate::frames::{self, Fault, Frames, GOODBYE};
use crate::http::ConnectionInfo;
use crate::limits::Limits;
use crate::reactor::Ready;
use crate::server::SocketCount;
use crate::slot::{Gone, WhyGone};
use crate::socket::Socket;
use crate::sync::lock;
use crate::timer::{Millis, millis};
use crate::tls::Session;
use crate::workers::{Task, Workers};

/// Bytes and reads that one run of a connection may take before it goes to the back of the queue.
const READ_BUDGET: usize = 64 * 1024;
const READ_CALLS: usize = 16;

pub(crate) struct Link {
    pub(crate) workers: Arc<Workers>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) limits: Arc<Limits>,
    info: ConnectionInfo,
    /// What a proxy says of its client.
    announced: OnceLock<ConnectionInfo>,
    pub(crate) ready: Arc<Ready>,
    socket: Socket,
    /// The layer above the socket, if there is one. Locked by the runner of the connection only.
    session: Option<Box<Mutex<Session>>>,
    connection: OnceLock<Weak<Connection>>,
    http2: AtomicBool,
    /// When it is too old.
    ends_at: Millis,
    /// It ends with what it is at, as the server does. Relaxed: who sets it has the connection run.
    ends: AtomicBool,
    /// Exchanges from their head until hyper has taken the last of the response.
    open: AtomicUsize,
    /// All exchanges so far, and all bytes written: they tell one wait from the next.
    exchanges: AtomicU64,
    written: AtomicU64,
    // What the runner of the connection alone writes and reads is relaxed: one run happens before the next.
    /// Something was read of a head that is not complete.
    pub(crate) in_head: AtomicBool,
    /// The same on HTTP/2, where other streams may be open.
    pub(crate) in_block: AtomicBool,
    /// The last write did not go through.
    pub(crate) write_blocked: AtomicBool,
    /// The last request was of HTTP/1.0: only the end of the connection may tell the end of its answer.
    pub(crate) is_http10: AtomicBool,
    /// hyper is to take its goodbye on HTTP/2 for answered. Set by the connection, cleared once hyper has read that.
    pub(crate) parts: AtomicBool,
    /// What was wrong with the client's frames.
    pub(crate) fault: OnceLock<Fault>,
    /// Why it was cut, if it was not the client that has left.
    pub(crate) gone: WhyGone,
    /// It was counted that its client takes nothing, by an answer or by the connection, which find out at the same time.
    is_slow: AtomicBool,
    /// The window that HTTP/2 streams begin with, and when h2 last wrote some of an answer. Relaxed: an old value does no harm.
    stream_window: AtomicU32,
    moved: AtomicU64,
    /// Bytes of bodies that hyper has taken so far.
    taken: AtomicU64,
    /// Bytes written that were no bodies (heads, chunk sizes), as of the last flush.
    framing: AtomicU64,
    budget: AtomicUsize,
    calls: AtomicUsize,
    /// Bytes held of request bodies whose handlers have not started. Relaxed: it is a bound on memory, not an order.
    ahead: AtomicUsize,
    queue: Mutex<QueuePlaces>,
    /// Answers of HTTP/1 of which hyper has taken all that it will, and not yet written it.
    unwritten: Mutex<Vec<Unwritten>>,
    /// There are some. Relaxed: whoever polls the connection looks again at its end.
    has_unwritten: AtomicBool,
    /// What became of answers of HTTP/2, to be told.
    let_go: Mutex<Vec<(Told, Result<u64, Cut>)>>,
    /// There are some. Relaxed, as above.
    has_let_go: AtomicBool,
    /// Counts the socket, for as long as it is open.
    count: SocketCount,
}

/// How many requests of this connection are queued, and who waits to queue one more (HTTP/2 streams); by lane, so that one that is full
/// holds up no others.
#[derive(Default)]
struct QueuePlaces {
    /// Lanes in which there are some, and how many.
    taken: Vec<(u64, usize)>,
    /// By turn, for which lane; one that is reset gives its turn up.
    waiting: BTreeMap<u64, (u64, Waker)>,
    next_turn: u64,
}

/// Told what became of an answer, see [`Responder::send_and_tell`](crate::Responder::send_and_tell).
pub type Told = Box<dyn FnOnce(Result<u64, Cut>) + Send>;

/// An answer that did not go out whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// About so many bytes of its body have gone out.
    pub bytes: u64,
    /// Whose doing it was; of a body that has ended with an error, `Left`.
    pub why: Gone,
}

struct Unwritten {
    told: Told,
    length: u64,
    /// Why hyper did not take all of it.
    cut: Option<Gone>,
    /// What `taken` was at its end.
    end: u64,
}

/// An answer that hyper does not write, since it has read no request that it could be to; `text`, or the name of the status.
pub(crate) fn last_words(status: StatusCode, text: &str) -> Vec<u8> {
    let text = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
    let (length, date) = (text.len() + 1, httpdate::fmt_http_date(SystemTime::now()));
    let kind = "text/plain; charset=utf-8";
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\ncontent-type: {kind}\r\ndate: {date}\r\n\r\n{text}\n"
    )
    .into_bytes()
}

/// Of a body of which hyper has taken so much, and written that.
fn as_taken(bytes: u64, cut: Option<Gone>) -> Result<u64, Cut> {
    cut.map_or(Ok(bytes), |why| Err(Cut { bytes, why }))
}

/// While it lives, an exchange of the connection is open.
pub(crate) struct Open(Arc<Link>);

impl Open {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Link {
    pub(crate) fn new(
        workers: Arc<Workers>,
        handler: Arc<dyn Handler>,
        limits: Arc<Limits>,
        info: ConnectionInfo,
        ready: Arc<Ready>,
        (socket, session): (Socket, Option<Session>),
        count: SocketCount,
    ) -> Arc<Self> {
        let ends_at = workers.reactor.timers.recent().saturating_add(millis(limits.max_age));
        Arc::new(Self {
            workers,
            handler,
            limits,
            info,
            announced: OnceLock::new(),
            ready,
            socket,
            session: session.map(|session| Box::new(Mutex::new(session))),
            connection: OnceLock::new(),
            http2: AtomicBool::new(false),
            ends_at,
            ends: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            exchanges: AtomicU64::new(0),
            written: AtomicU64::new(0),
            in_head: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            is_http10: AtomicBool::new(false),
            in_block: AtomicBool::new(false),
            parts: AtomicBool::new(false),
            fault: OnceLock::new(),
            gone: WhyGone::default(),
            is_slow: AtomicBool::new(false),
            stream_window: AtomicU32::new(frames::WINDOW),
            moved: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            framing: AtomicU64::new(0),
            budget: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            queue: Mutex::default(),
            unwritten: Mutex::default(),
            has_unwritten: AtomicBool::new(false),
            let_go: Mutex::default(),
            has_let_go: AtomicBool::new(false),
            count,
        })
    }

    /// Who the client is, and where it has connected to.
    pub(crate) fn info(&self) -> &ConnectionInfo {
        self.announced.get().unwrap_or(&self.info)
    }

    /// The client is `peer`, and has connected to `local`, as its proxy says. False: it has too many connections.
    pub(crate) fn announce(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        let info = ConnectionInfo { peer: Some(peer), local: Some(local), ..self.info.clone() };
        // Once, before everything else.
        let _ = self.announced.set(info);
        self.count.counts(peer)
    }

    pub(crate) fn connect(&self, connection: &Arc<Connection>) {
        // Set once, by the maker of both.
        let _ = self.connection.set(Arc::downgrade(connection));
    }

    pub(crate) fn is_http2(&self) {
        self.http2.store(true, Ordering::SeqCst);
    }

    pub(crate) fn speaks_http2(&self) -> bool {
        self.http2.load(Ordering::SeqCst)
    }

    /// The connection that carries the stream being polled; none on HTTP/1, where the connection itself is polled.
    pub(crate) fn connection_of_stream(&self) -> Option<Arc<dyn Task>> {
        if !self.speaks_http2() {
            return None;
        }
        self.connection().map(|connection| connection as Arc<dyn Task>)
    }

    pub(crate) fn connection(&self) -> Option<Arc<Connection>> {
        self.connection.get()?.upgrade()
    }

    pub(crate) fn open_exchange(self: &Arc<Self>, version: http::Version) -> Open {
        self.in_head.store(false, Ordering::Relaxed);
        self.is_http10.store(version == http::Version::HTTP_10, Ordering::Relaxed);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(self.clone())
    }

    /// For a request's body: until it is at its end, or dropped, its exchange is not over.
    pub(crate) fn keep_open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::SeqCst);
        Open(self.clone())
    }

    pub(crate) fn exchanges(&self) -> u64 {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// From here on it is spent.
    pub(crate) fn spend(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// It has had all its requests, or its time, or the server ends: it ends with what it is at.
    pub(crate) fn is_spent(&self) -> bool {
        self.exchanges() >= self.limits.max_requests
            || self.workers.reactor.timers.recent() >= self.ends_at
            || self.ends.load(Ordering::Relaxed)
    }

    /// To be said with an answer, if it is the last (RFC 9112 section 9.6); HTTP/2 has GOAWAY.
    pub(crate) fn says_close(&self) -> bool {
        self.is_spent() && !self.speaks_http2()
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(crate) fn has_open(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn stream_window(&self) -> u64 {
        self.stream_window.load(Ordering::Relaxed).into()
    }

    pub(crate) fn moved(&self) -> Millis {
        self.moved.load(Ordering::Relaxed)
    }

    /// h2 has written some of an answer.
    pub(crate) fn moves(&self, now: Millis) {
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Takes a place for one queued request; a connection has at most twice as many in a lane as there are seats. False: `waker` will be
    /// woken.
    pub(crate) fn enter_queue(&self, lane: u64, turn: &mut Option<u64>, waker: &Waker) -> bool {
        let most = 2 * self.workers.bounds().seats;
        let mut queue = lock(&self.queue);
        let queue = &mut *queue;
        let admitted = match queue.taken.iter_mut().find(|(in_lane, _)| *in_lane == lane) {
            Some((_, taken)) if *taken >= most => false,
            Some((_, taken)) => {
                *taken += 1;
                true
            }
            None => {
                queue.taken.push((lane, 1));
                true
            }
        };
        if !admitted {
            let turn = *turn.get_or_insert_with(|| {
                queue.next_turn += 1;
                queue.next_turn
            });
            queue.waiting.insert(turn, (lane, waker.clone()));
        } else if let Some(turn) = turn.take() {
            queue.waiting.remove(&turn);
        }
        admitted
    }

    /// How long ago `since` was, by the clock of the timers: reading a finer one for each request would cost as much as a queue does.
    pub(crate) fn queued_since(&self, since: Millis) -> Duration {
        Duration::from_millis(self.workers.reactor.timers.recent().saturating_sub(since))
    }

    pub(crate) fn give_up_turn(&self, turn: u64) {
        lock(&self.queue).waiting.remove(&turn);
    }

    pub(crate) fn leave_queue(&self, lane: u64) {
        let waiting: Vec<_> = {
            let mut queue = lock(&self.queue);
            if let Some(at) = queue.taken.iter().position(|(in_lane, _)| *in_lane == lane) {
                queue.taken[at].1 -= 1;
                if queue.taken[at].1 == 0 {
                    queue.taken.swap_remove(at);
                }
            }
            // All of the lane: some may have been reset meanwhile, and would swallow the one wake-up.
            queue.waiting.extract_if(.., |_, (of_lane, _)| *of_lane == lane).collect()
        };
        for (_, (_, waker)) in waiting {
            waker.wake();
        }
    }

    pub(crate) fn ahead(&self) -> usize {
        self.ahead.load(Ordering::Relaxed)
    }

    pub(crate) fn hold_ahead(&self, bytes: usize) {
        self.ahead.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_ahead(&self, bytes: usize) {
        if bytes > 0 {
            self.ahead.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// A run begins.
    pub(crate) fn refill_budget(&self) {
        self.budget.store(READ_BUDGET, Ordering::Relaxed);
        self.calls.store(READ_CALLS, Ordering::Relaxed);
    }

    pub(crate) fn shut_write(&self) {
        self.socket.shutdown(Shutdown::Write);
    }

    /// The connection is over. A handler may hold on to the link for a while; the peer need not wait for that.
    pub(crate) fn shut(&self) {
        self.socket.shutdown(Shutdown::Both);
    }

    /// Writes what fits into the socket's buffer, for an answer to a client that never completed a request.
    pub(crate) fn write_now(&self, text: &[u8]) {
        match &self.session {
            Some(session) => lock(session).write_now(self, text),
            None => self.write_plain(text),
        }
    }

    /// As `write_now`, past the layer above the socket.
    pub(crate) fn write_plain(&self, text: &[u8]) {
        let _ = self.socket.write(text);
    }

    /// All has been said, and the peer may know that it has got all (with TLS: `close_notify`).
    pub(crate) fn say_goodbye(&self) {
        if let Some(session) = &self.session {
            lock(session).say_goodbye(self);
        }
    }

    /// Whether it begins with a handshake.
    pub(crate) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    pub(crate) fn poll_handshake(&self) -> Poll<io::Result<()>> {
        self.session.as_ref().map_or(Poll::Ready(Ok(())), |session| lock(session).poll_handshake(self))
    }

    /// In place of `shut`: the client shall not take what it got for a whole answer. Over TCP it gets a reset when the last share
    /// of the link is dropped.
    pub(crate) fn reset(&self) {
        self.socket.reset();
    }

    /// hyper has taken so many bytes of a body.
    pub(crate) fn took(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// hyper has let go of a body of which it had taken `length` bytes, and if those were not all, for this reason.
    pub(crate) fn body_ended(&self, told: Told, length: u64, cut: Option<Gone>) {
        if self.speaks_http2() {
            return told(as_taken(length, cut));
        }
        let end = self.taken.load(Ordering::Relaxed);
        lock(&self.unwritten).push(Unwritten { told, length, cut, end });
        self.has_unwritten.store(true, Ordering::Relaxed);
    }

    /// h2 has let go of an answer. That is told when the connection has run: h2 holds locks now, and what is called is code of others.
    pub(crate) fn let_go(&self, told: Told, length: u64, cut: Option<Gone>) {
        lock(&self.let_go).push((told, as_taken(length, cut)));
        self.has_let_go.store(true, Ordering::Relaxed);
    }

    /// The connection has run.
    pub(crate) fn tell_let_go(&self) {
        if self.has_let_go.load(Ordering::Relaxed) {
            self.has_let_go.store(false, Ordering::Relaxed);
            let let_go = std::mem::take(&mut *lock(&self.let_go));
            for (told, became) in let_go {
                told(became);
            }
        }
    }

    /// hyper has written all that it had taken.
    fn flushed(&self) {
        self.framing.store(self.written().wrapping_sub(self.taken.load(Ordering::Relaxed)), Ordering::Relaxed);
        if self.has_unwritten.load(Ordering::Relaxed) {
            self.has_unwritten.store(false, Ordering::Relaxed);
            self.tell(|answer| as_taken(answer.length, answer.cut));
        }
    }

    /// hyper's connection is gone, and with it what was not written.
    pub(crate) fn lost(&self) {
        let written = self.written().wrapping_sub(self.framing.load(Ordering::Relaxed));
        self.tell(|answer| {
            let bytes = answer.length.saturating_sub(answer.end.saturating_sub(written));
            Err(Cut { bytes, why: answer.cut.unwrap_or_else(|| self.why_gone()) })
        });
        self.tell_let_go();
    }

    /// Why the client gets no more, as far as the connection is concerned.
    pub(crate) fn why_gone(&self) -> Gone {
        self.gone.get().unwrap_or(Gone::Left)
    }

    /// Its client takes nothing of what it asked for, and is cut.
    pub(crate) fn note_slow(&self) {
        if !self.is_slow.swap(true, Ordering::SeqCst) {
            self.note(Event::WriteTimeout);
        }
    }

    /// Counts what has happened to its client.
    pub(crate) fn note(&self, event: Event) {
        self.count.note(event, self.info().peer_addr());
    }

    /// Tells what became of the answers that were not written until now. Not under the lock: what is called is code of others.
    fn tell(&self, became: impl Fn(&Unwritten) -> Result<u64, Cut>) {
        let unwritten = std::mem::take(&mut *lock(&self.unwritten));
        for answer in unwritten {
            let became = became(&answer);
            (answer.told)(became);
        }
    }

    /// Takes one of the reads that a run may do. False: there is none left, and another run will follow.
    pub(crate) fn take_call(&self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        match calls.checked_sub(1) {
            Some(left) => self.calls.store(left, Ordering::Relaxed),
            None => {
                if let Some(connection) = self.connection() {
                    connection.notify();
                }
            }
        }
        calls > 0
    }

    /// Reads once, at most `max` bytes, and passes them on. `Pending` registers nothing: the reactor notifies the connection.
    pub(crate) fn poll_read_with(&self, max: usize, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        let read = match &self.session {
            Some(session) => lock(session).poll_read(self, max, take),
            None => self.poll_read_plain(max, take),
        };
        if matches!(read, Poll::Ready(Ok(1..))) && !self.has_open() {
            self.in_head.store(true, Ordering::Relaxed);
        }
        read
    }

    /// As `poll_read_with`, past the layer above the socket.
    pub(crate) fn poll_read_plain(&self, max: usize, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        self.ready.read_from(&self.socket, max, take).map_or(Poll::Pending, Poll::Ready)
    }

    /// Follows the frames of HTTP/2 in what was read. After an error hyper reads no more, and resets what is open.
    fn follow(&self, frames: &mut Option<Frames>, bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = frames else { return Ok(()) };
        let followed = frames.follow(bytes, self.workers.reactor.timers.recent(), self.written());
        self.in_block.store(frames.is_in_block(), Ordering::Relaxed);
        self.stream_window.store(frames.stream_window(), Ordering::Relaxed);
        followed.map_err(|fault| {
            // Set once: the connection ends.
            let _ = self.fault.set(fault);
            io::Error::other(fault.to_string())
        })
    }

    /// So many more bytes of what hyper wrote have gone out.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Writes `slices`; `plain` does so without a layer above the socket.
    fn poll_write(
        &self,
        slices: &[IoSlice<'_>],
        plain: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if let Some(session) = &self.session {
            return lock(session).poll_write(self, slices);
        }
        self.poll_write_with(plain).map_ok(|n| {
            self.wrote(n);
            n
        })
    }

    /// Nothing of what hyper wrote is left on our side.
    fn poll_flush(&self) -> Poll<io::Result<()>> {
        self.session.as_ref().map_or(Poll::Ready(Ok(())), |session| lock(session).poll_send(self))
    }

    /// Writes to the socket, past the layer above it.
    pub(crate) fn poll_write_with(
        &self,
        mut write: impl FnMut(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let written = self.ready.write.attempt(|| Ok((write(&self.socket)?, true)));
        self.write_blocked.store(written.is_none(), Ordering::Relaxed);
        written.map_or(Poll::Pending, Poll::Ready)
    }
}

/// The connection's byte stream for hyper; first gives out what was read to tell the protocol.
pub(crate) struct Stream {
    link: Arc<Link>,
    read_before: Vec<u8>,
    /// On HTTP/2.
    frames: Option<Frames>,
    /// On HTTP/1: what was read since the last of so many exchanges, in bytes.
    head: usize,
    exchanges: u64,
}

impl Stream {
    pub(crate) fn new(link: Arc<Link>, read_before: Vec<u8>, frames: Option<Frames>) -> Self {
        let exchanges = link.exchanges();
        Self { link, read_before, frames, head: 0, exchanges }
    }

    /// How much the next read may take.
    fn room(&mut self) -> usize {
        if let Some(frames) = &self.frames {
            return if self.link.parts.load(Ordering::Relaxed) { frames.missing() } else { usize::MAX };
        }
        let exchanges = self.link.exchanges();
        if self.exchanges != exchanges {
            (self.exchanges, self.head) = (exchanges, 0);
        }
        // hyper asks how long a head is only when a read has not ended it, so none may go further. If there was more already, it was
        // no head: the rest of a body, or empty lines.
        match self.link.limits.max_head.saturating_sub(self.head) {
            0 => usize::MAX,
            _ if self.link.has_open() => usize::MAX,
            room => room,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let room = this.room();
        let Self { link, read_before, frames, head, .. } = this;
        if read_before.is_empty()
            && link.parts.load(Ordering::Relaxed)
            && frames.as_ref().is_some_and(Frames::is_between)
        {
            link.parts.store(false, Ordering::Relaxed);
            read_before.extend_from_slice(GOODBYE);
        }
        if !read_before.is_empty() {
            let length = read_before.len().min(cursor.remaining()).min(room);
            cursor.put_slice(&read_before[..length]);
            *head += length;
            let followed = link.follow(frames, &read_before[..length]);
            read_before.drain(..length);
            return Poll::Ready(followed);
        }
        let budget = link.budget.load(Ordering::Relaxed);
        if budget == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !link.take_call() {
            return Poll::Pending;
        }
        let max = cursor.remaining().min(budget).min(room);
        let mut followed = Ok(());
        let read = link.poll_read_with(max, |bytes| {
            cursor.put_slice(bytes);
            followed = link.follow(frames, bytes);
        });
        read.map(|read| {
            let n = read?;
            link.budget.store(budget - n, Ordering::Relaxed);
            if !link.has_open() {
                *head += n;
            }
            followed
        })
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.link.poll_write(&[IoSlice::new(bytes)], |socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.link.poll_write(slices, |socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper calls it when it has nothing left to write.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.link.poll_flush())?;
        self.link.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.say_goodbye();
        std::task::ready!(self.link.poll_flush())?;
        self.link.shut_write();
        Poll::Ready(Ok(()))
    }
}
