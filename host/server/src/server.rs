//! The server: binding, starting, and the handle that stops it. What can be set is in `options.rs`.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use socket2::Domain;

use crate::connection::{Connection, LAST_LINGER, QUIET};
use crate::counts::{Counters, Counts, Event, Tally};
use crate::exchange::Handler;
use crate::executor::Executor;
use crate::http::{ConnectionInfo, Service};
use crate::limits::Limits;
use crate::link::Link;
use crate::listener::{self, Listener};
use crate::options::{IsProxy, Options};
use crate::peers::Peers;
use crate::reactor::{Ready, Told};
use crate::service::{Cloned, Serviced};
use crate::socket::{Listening, Socket};
use crate::sync::lock;
use crate::tls;
use crate::workers::Workers;

/// How often shutdown looks whether all is done.
const SHUTDOWN_POLL: Duration = Duration::from_millis(2);

/// How often it looks at each connection.
const SHUTDOWN_LOOK: Duration = Duration::from_millis(50);

/// A blocking HTTP server: addresses, Unix sockets and options. `serve` it, or `start` it and keep the [`Handle`].
///
/// ```no_run
/// use astra_server::{Body, Response, Server};
///
/// Server::bind("localhost:3000")
///     .serve(|_req, _info| Response::new(Body::new("Hello World!")))
///     .expect("serve failed");
/// ```
#[derive(Default)]
pub struct Server {
    pub(crate) listeners: Vec<(Listening, Option<tls::Config>)>,
    pub(crate) options: Options,
}

/// What all connections of a running server share.
pub(crate) struct Shared {
    pub(crate) workers: Arc<Workers>,
    pub(crate) http1: hyper::server::conn::http1::Builder,
    pub(crate) http2: hyper::server::conn::http2::Builder<Executor>,
    pub(crate) protocols: Protocols,
    handler: Arc<dyn Handler>,
    limits: Arc<Limits>,
    nodelay: bool,
    abandon_after: Option<Duration>,
    max_connections: usize,
    /// Set if connections per peer are bounded.
    peers: Option<Peers>,
    is_proxy: Option<Box<IsProxy>>,
    connections: AtomicUsize,
    /// Sockets: those of connections, and of closed ones that a handler still holds on to.
    sockets: AtomicUsize,
    /// Set once, by shutdown.
    draining: AtomicBool,
    /// And then, when all connections have been told.
    has_told: AtomicBool,
    /// Connections on which all has been said and only the peer's end is waited for.
    lingering: AtomicUsize,
    pub(crate) tally: Tally,
    /// A listener found the server full and is to be told when it no longer is.
    full: AtomicBool,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

/// Which versions of HTTP are spoken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocols {
    pub(crate) http1: bool,
    pub(crate) http2: bool,
}

impl Server {
    /// Binds to `addr`, on every address that it resolves to (`localhost` is `127.0.0.1` and `[::1]`).
    ///
    /// # Panics
    ///
    /// If that fails; [`try_bind`](Self::try_bind) returns the error.
    pub fn bind(addr: impl ToSocketAddrs) -> Self {
        match Self::try_bind(addr) {
            Ok(server) => server,
            // What the seed does, and what its documentation promises.
            Err(error) => panic!("failed to bind listener: {error}"),
        }
    }

    /// Binds to `addr`, on every address that it resolves to.
    ///
    /// # Errors
    ///
    /// If the name does not resolve, or an address is in use or not allowed. An address family that this machine does not have is
    /// passed over if another address could be bound.
    pub fn try_bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Self::default().and_bind(addr)
    }

    /// Binds to one more address.
    ///
    /// # Errors
    ///
    /// As [`try_bind`](Self::try_bind).
    pub fn and_bind(self, addr: impl ToSocketAddrs) -> io::Result<Self> {
        listener::bind(addr)?.into_iter().try_fold(self, |server, listener| server.and_listen(listener))
    }

    /// Binds to a Unix stream socket at `path`, which stays behind when the server ends.
    ///
    /// # Errors
    ///
    /// If `path` exists (as the socket of a server that has ended still does), is longer than a socket's address may be (about
    /// 100 bytes), or cannot be made.
    pub fn try_bind_unix(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::default().and_bind_unix(path)
    }

    /// Binds to one more Unix stream socket, at `path`.
    ///
    /// # Errors
    ///
    /// As [`try_bind_unix`](Self::try_bind_unix).
    pub fn and_bind_unix(self, path: impl AsRef<Path>) -> io::Result<Self> {
        self.and_listen_unix(UnixListener::bind(path)?)
    }

    /// Listens on one more Unix stream socket, which is bound already: its mode, its owner and what was at its path before are
    /// the caller's business.
    ///
    /// ```no_run
    /// use astra_server::Server;
    /// use std::os::unix::net::UnixListener;
    ///
    /// let listener = UnixListener::bind("/run/app.sock")?;
    /// let server = Server::default().and_listen_unix(listener)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If it cannot be made non-blocking.
    pub fn and_listen_unix(mut self, listener: UnixListener) -> io::Result<Self> {
        self.listeners.push((Listening::unix(listener)?, None));
        Ok(self)
    }

    /// Listens on one more stream socket, TCP or Unix, that listens already: perhaps one that systemd or another process has passed on.
    ///
    /// # Errors
    ///
    /// If it is no such socket, or cannot be made non-blocking.
    pub fn and_listen(mut self, socket: impl Into<OwnedFd>) -> io::Result<Self> {
        let socket = socket.into();
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        let listening = match socket2::SockRef::from(&socket).local_addr()?.domain() {
            Domain::UNIX => Listening::unix(socket.into())?,
            _ => Listening::tcp(socket.into())?,
        };
        self.listeners.push((listening, None));
        Ok(self)
    }

    /// The first TCP address it is bound to: with port 0, where the port can be learnt.
    ///
    /// # Errors
    ///
    /// If there is none, or the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let none = || io::Error::new(io::ErrorKind::NotConnected, "the server is bound to no TCP address");
        self.listeners.iter().find_map(|(listener, _)| listener.local_addr()).ok_or_else(none)?
    }

    /// All TCP addresses it is bound to.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(listener, _)| listener.local_addr()?.ok()).collect()
    }

    /// Runs futures on the workers that this server will have.
    pub fn executor(&self) -> Executor {
        self.options.executor.clone()
    }

    /// Serves on threads of its own, and blocks for ever.
    ///
    /// # Errors
    ///
    /// If the reactor or the first threads cannot be made.
    pub fn serve<S: Service + Sync>(self, service: S) -> io::Result<()> {
        serve_for_ever(self.start(Serviced(service))?)
    }

    /// Like [`serve`](Self::serve), with a clone of the service for each request, for services that are not `Sync`.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn serve_clone<S: Service + Clone>(self, service: S) -> io::Result<()> {
        serve_for_ever(self.start(Cloned::new(service))?)
    }

    /// Like [`start`](Self::start), for a service.
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    pub fn start_service<S: Service + Sync>(self, service: S) -> io::Result<Handle> {
        self.start(Serviced(service))
    }

    /// Starts serving on threads of its own.
    ///
    /// # Errors
    ///
    /// If the reactor or the first threads cannot be made.
    pub fn start(self, handler: impl Handler) -> io::Result<Handle> {
        let local_addrs = self.local_addrs();
        let Options {
            mut http1,
            mut http2,
            executor,
            protocols,
            limits,
            max_connections,
            max_connections_per_peer,
            is_proxy,
            nodelay,
            abandon_after,
            workers,
        } = self.options;
        let workers = Workers::start(workers)?;
        let handle = |shared| Handle { shared, local_addrs, ended: false };
        executor.belongs_to(&workers);
        http1.timer(executor.clone());
        http2.timer(executor);
        let shared = Arc::new(Shared {
            workers,
            http1,
            http2,
            protocols,
            handler: Arc::new(handler),
            limits: Arc::new(limits),
            nodelay,
            abandon_after,
            max_connections,
            peers: max_connections_per_peer.map(Peers::new),
            is_proxy,
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            has_told: AtomicBool::new(false),
            lingering: AtomicUsize::new(0),
            tally: Tally::default(),
            full: AtomicBool::new(false),
            listeners: Mutex::default(),
        });
        // From here on dropping the handle ends the threads.
        let handle = handle(shared.clone());
        for (socket, tls) in self.listeners {
            let tls = tls.map(|tls| tls.offering(protocols));
            let listener = Listener::register(socket, tls, &shared)?;
            lock(&shared.listeners).push(listener);
        }
        Ok(handle)
    }
}

fn serve_for_ever(_handle: Handle) -> io::Result<()> {
    loop {
        std::thread::park();
    }
}

impl Shared {
    /// Whether no more connections are accepted now. If so the listeners are told when that changes.
    pub(crate) fn is_full(&self) -> bool {
        if self.sockets.load(Ordering::SeqCst) < self.max_connections {
            return false;
        }
        self.full.store(true, Ordering::SeqCst);
        // One may have gone before it could see the flag.
        self.sockets.load(Ordering::SeqCst) >= self.max_connections
    }

    /// Whether it ends with what it is at.
    pub(crate) fn drains(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether all its connections know that.
    pub(crate) fn has_told(&self) -> bool {
        self.has_told.load(Ordering::SeqCst)
    }

    /// Takes over a connection that was accepted.
    pub(crate) fn connect(self: &Arc<Self>, socket: Socket, mut info: ConnectionInfo, tls: Option<&tls::Config>) {
        self.tally.accepted.fetch_add(1, Ordering::Relaxed);
        let is_announced = info.peer_addr().is_some_and(|peer| self.is_proxy.as_ref().is_some_and(|is| is(peer.ip())));
        let peer = info.peer_addr().filter(|_| !is_announced);
        let Some(count) = SocketCount::new(self, peer) else {
            return self.note(Event::MaxConnectionsPerPeer, info.peer_addr());
        };
        if self.nodelay
            && let Err(error) = socket.set_nodelay()
        {
            // The peer has reset it already.
            log::debug!("a connection was lost: {error}");
            return;
        }
        let session = match tls.map(|tls| tls.session(&mut info)).transpose() {
            Ok(session) => session,
            Err(error) => return log::error!("cannot begin a TLS handshake: {error}"),
        };
        let ready = Arc::new(Ready::new());
        self.connections.fetch_add(1, Ordering::SeqCst);
        let connection = self.workers.reactor.insert(socket, ready.clone(), |socket, token| {
            let (handler, limits) = (self.handler.clone(), self.limits.clone());
            let link = Link::new(self.workers.clone(), handler, limits, info, ready, (socket, session), count);
            // Shutdown tells the connections that it finds in the table, after it has said that it drains; this one is not there yet, and
            // may be served as soon as it is.
            if self.drains() {
                link.spend();
            }
            let connection = Connection::new(link, self.clone(), token, is_announced);
            (connection.clone(), Told::Task(connection))
        });
        match connection {
            // A first run sets its timer.
            Ok(connection) => connection.notify(),
            Err(error) => {
                log::warn!("cannot watch a connection: {error}");
                self.disconnected(false);
            }
        }
    }

    /// That are open now.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn lingers(&self) {
        self.lingering.fetch_add(1, Ordering::SeqCst);
    }

    /// A connection has closed.
    pub(crate) fn disconnected(&self, lingered: bool) {
        if lingered {
            self.lingering.fetch_sub(1, Ordering::SeqCst);
        }
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    fn socket_closed(&self, peer: Option<IpAddr>) {
        if let (Some(peers), Some(peer)) = (&self.peers, peer) {
            peers.leave(peer);
        }
        self.sockets.fetch_sub(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) && self.full.swap(false, Ordering::SeqCst) {
            self.listeners().iter().for_each(|listener| listener.resume());
        }
    }

    /// Not under the lock: a listener's own is held while it accepts, and what it accepts may end there and then.
    fn listeners(&self) -> Vec<Arc<Listener>> {
        lock(&self.listeners).clone()
    }
}

/// Counts one open socket.
pub(crate) struct SocketCount {
    shared: Arc<Shared>,
    /// Set if its peer counts it too.
    peer: OnceLock<IpAddr>,
}

impl SocketCount {
    /// None: the peer has too many.
    fn new(shared: &Arc<Shared>, peer: Option<SocketAddr>) -> Option<Self> {
        shared.sockets.fetch_add(1, Ordering::SeqCst);
        let count = Self { shared: shared.clone(), peer: OnceLock::new() };
        peer.is_none_or(|peer| count.counts(peer)).then_some(count)
    }

    /// Has its peer count it too. False: that has too many.
    pub(crate) fn counts(&self, peer: SocketAddr) -> bool {
        let Some(peers) = &self.shared.peers else { return true };
        // Once for each socket.
        peers.enter(peer.ip()).is_some_and(|peer| self.peer.set(peer).is_ok())
    }

    pub(crate) fn note(&self, event: Event, peer: Option<SocketAddr>) {
        self.shared.note(event, peer);
    }
}

impl Drop for SocketCount {
    fn drop(&mut self) {
        self.shared.socket_closed(self.peer.get().copied());
    }
}

/// A socket that listens, from [`Sockets::try_clone`].
#[derive(Debug)]
pub struct ListeningSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// Whether its connections speak TLS.
    pub speaks_tls: bool,
}

/// The sockets that a server listens on, see [`Handle::sockets`]. They keep no server alive.
#[derive(Clone)]
pub struct Sockets(Weak<Shared>);

impl Sockets {
    /// The same sockets once more, to be passed on to another process; none once the server does not listen any more.
    ///
    /// # Errors
    ///
    /// If there are no more file descriptors to be had.
    pub fn try_clone(&self) -> io::Result<Vec<ListeningSocket>> {
        let Some(shared) = self.0.upgrade() else { return Ok(Vec::new()) };
        shared.listeners().iter().filter_map(|listener| listener.try_clone().transpose()).collect()
    }

    /// Closes them; the server goes on with the connections it has. What is in a backlog is for whoever else has the socket; where nobody
    /// has, it is reset.
    pub fn close(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        shared.listeners().iter().for_each(|listener| listener.close());
    }
}

/// A running server. Dropped, it cuts what is under way; [`shutdown`](Self::shutdown) does it kindly.
#[must_use = "dropping the handle stops the server"]
pub struct Handle {
    shared: Arc<Shared>,
    local_addrs: Vec<SocketAddr>,
    ended: bool,
}

impl Handle {
    /// All TCP addresses it listens on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.local_addrs.clone()
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The same for whoever has not got the handle.
    pub fn counters(&self) -> Counters {
        Counters::new(&self.shared)
    }

    /// The sockets it listens on, for whoever passes them on to another process.
    pub fn sockets(&self) -> Sockets {
        Sockets(Arc::downgrade(&self.shared))
    }

    /// Takes what is in the backlog and stops accepting; tells connections that they end (with `connection: close` on their next
    /// answer, with GOAWAY), and waits for that at most `drain`. Then it cuts what is left and joins all its threads. None: nothing was cut;
    /// otherwise so many requests had been started and had not ended, beside answers that were not all sent.
    ///
    /// A connection of HTTP/1 that is idle is not closed at once, since its next request may be on its way: it stays open as long as
    /// anything is under way on any, and until all has been quiet for a second. A server without connections ends at once.
    ///
    /// A native handler that ignores that its client is gone cannot be cut, and is waited for: for ever, or as long as
    /// [`Server::abandon_after`] says.
    pub fn shutdown(mut self, drain: Duration) -> Option<usize> {
        self.end(drain)
    }

    fn end(&mut self, drain: Duration) -> Option<usize> {
        self.ended = true;
        let workers = &self.shared.workers;
        let until = Instant::now() + drain;
        self.shared.draining.store(true, Ordering::SeqCst);
        workers.reactor.tasks().into_iter().for_each(|task| task.drain());
        // Who finds that nobody listens any more finds that its connections have been told.
        self.shared.has_told.store(true, Ordering::SeqCst);
        self.shared.listeners().iter().for_each(|listener| listener.resume());
        let mut look = Instant::now() + QUIET;
        while !self.all_said() && Instant::now() < until {
            std::thread::sleep(SHUTDOWN_POLL);
            if Instant::now() >= look {
                look += SHUTDOWN_LOOK;
                if self.is_quiet() {
                    workers.reactor.tasks().into_iter().for_each(|task| task.hush());
                }
            }
        }
        let unfinished = workers.open();
        let is_whole = self.all_said() || self.is_quiet();
        let lingered = until.min(Instant::now() + LAST_LINGER);
        while !self.is_done() && Instant::now() < lingered {
            std::thread::sleep(SHUTDOWN_POLL);
        }
        let listeners = std::mem::take(&mut *lock(&self.shared.listeners));
        listeners.iter().for_each(|listener| listener.close());
        let (cut, abandon_after) = (Instant::now(), self.shared.abandon_after);
        while !self.is_done() && abandon_after.is_none_or(|time| cut.elapsed() < time) {
            for task in workers.reactor.tasks() {
                task.cut();
            }
            workers.cut_requests();
            std::thread::sleep(SHUTDOWN_POLL);
        }
        self.shared.tell_all();
        let left = workers.close();
        if left > 0 {
            log::warn!("requests that could not be cut are left behind with their threads: {left}");
        }
        (!is_whole).then_some(unfinished)
    }

    /// Every request that came in is answered, every answer is on its way, and nothing more can come.
    fn all_said(&self) -> bool {
        let shared = &self.shared;
        shared.listeners().iter().all(|listener| listener.is_closed())
            && shared.workers.open() == 0
            && shared.connections.load(Ordering::SeqCst) == shared.lingering.load(Ordering::SeqCst)
    }

    /// Nothing is under way on any connection.
    fn is_quiet(&self) -> bool {
        let workers = &self.shared.workers;
        workers.open() == 0 && !workers.reactor.tasks().iter().any(|task| task.is_busy())
    }

    fn is_done(&self) -> bool {
        self.shared.connections.load(Ordering::SeqCst) == 0 && self.shared.workers.open() == 0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Duration::ZERO);
        }
    }
}
