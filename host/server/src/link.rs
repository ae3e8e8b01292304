//! What the parts of one connection share: the socket, its readiness, its counters, and where requests go. `connection.rs` owns the protocol on
//! top, `stream.rs` is hyper's end.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use crate::connection::Connection;
use crate::counts::Event;
use crate::doubt::Doubt;
use crate::exchange::Handler;
use crate::frames::{self, Fault, Frames};
use crate::http::ConnectionInfo;
use crate::limits::Limits;
use crate::places::Places;
use crate::reactor::Ready;
use crate::server::SocketCount;
use crate::slot::{Gone, WhyGone};
use crate::socket::Socket;
use crate::sync::lock;
use crate::timer::{Millis, millis};
use crate::tls::Session;
use crate::told::{Answers, Told, as_taken};
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
    /// On HTTP/1, whether what follows the last request is one; see [`Doubt`].
    pub(crate) doubt: Doubt,
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
    /// Bytes that this run may still read, and reads.
    pub(crate) budget: AtomicUsize,
    calls: AtomicUsize,
    /// Bytes held of request bodies whose handlers have not started. Relaxed: it is a bound on memory, not an order.
    ahead: AtomicUsize,
    pub(crate) places: Places,
    pub(crate) answers: Answers,
    /// Counts the socket, for as long as it is open.
    count: SocketCount,
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
        let most_queued = 2 * workers.bounds().seats;
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
            doubt: Doubt::default(),
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
            budget: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            places: Places::new(most_queued),
            answers: Answers::default(),
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

    /// How long ago `since` was, by the clock of the timers: reading a finer one for each request would cost as much as a queue does.
    pub(crate) fn queued_since(&self, since: Millis) -> Duration {
        Duration::from_millis(self.workers.reactor.timers.recent().saturating_sub(since))
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

    /// hyper has let go of a body of which it had taken `length` bytes, and if those were not all, for this reason.
    pub(crate) fn body_ended(&self, told: Told, length: u64, cut: Option<Gone>) {
        if self.speaks_http2() { told(as_taken(length, cut)) } else { self.answers.ended(told, length, cut) }
    }

    /// hyper's connection is gone, and with it what was not written.
    pub(crate) fn lost(&self) {
        self.answers.lost(self.written(), self.why_gone());
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
    pub(crate) fn follow(&self, frames: &mut Option<Frames>, bytes: &[u8]) -> io::Result<()> {
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
    pub(crate) fn poll_write(
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
    pub(crate) fn poll_flush(&self) -> Poll<io::Result<()>> {
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
