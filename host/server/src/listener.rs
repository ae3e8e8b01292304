//! Accepts connections, and never dies of it: what one accept says about one client is passed over; when there are no file
//! descriptors or no memory, it waits and tries again; at the connection limit it leaves clients in the backlog until one of
//! the others has gone. A server that drains takes what is in the backlog, and then closes.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use mio::Token;
use socket2::{Domain, Protocol, Type};

use crate::counts::Event;
use crate::reactor::{Ready, Told};
use crate::run_state::RunState;
use crate::server::{ListeningSocket, Shared};
use crate::socket::Listening;
use crate::sync::lock;
use crate::tls;
use crate::workers::Task;

/// Connections taken in one run; then others get their turn.
const BATCH: usize = 64;

/// The pause after an accept that failed for want of resources.
const PAUSE: Duration = Duration::from_millis(100);

/// What the kernel may hold for us; it caps this itself (`net.core.somaxconn`).
const BACKLOG: u16 = 4096;

pub(crate) struct Listener {
    state: RunState,
    ready: Arc<Ready>,
    shared: Arc<Shared>,
    token: Token,
    /// What its connections speak TLS with, if they do.
    tls: Option<tls::Config>,
    /// None once closed.
    socket: Mutex<Option<Listening>>,
    /// Connections that are still taken once the server drains: no more than there can be in the backlog.
    last: AtomicU16,
    /// The last accept failed for want of resources, which has been said. Relaxed: written and read by one run at a time.
    fails: AtomicBool,
}

/// Binds every address that the name resolves to (`localhost` is two), all to one port. An address family that this machine
/// does not have is passed over if another could be bound.
pub(crate) fn bind(addr: impl ToSocketAddrs) -> io::Result<Vec<std::net::TcpListener>> {
    let mut listeners: Vec<std::net::TcpListener> = Vec::new();
    let mut bound: Vec<SocketAddr> = Vec::new();
    let mut missing = io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address");
    for mut addr in addr.to_socket_addrs()? {
        if let (0, Some(first)) = (addr.port(), bound.first()) {
            addr.set_port(first.port());
        }
        if bound.contains(&addr) {
            continue;
        }
        match bind_one(addr) {
            Ok(listener) => {
                bound.push(listener.local_addr()?);
                listeners.push(listener);
            }
            Err(error) if is_no_such_family(&error) => missing = error,
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() { Err(missing) } else { Ok(listeners) }
}

fn bind_one(addr: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // `[::]` and `0.0.0.0` are two addresses here, whatever the system's default is.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

fn is_no_such_family(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

impl Listener {
    pub(crate) fn register(socket: Listening, tls: Option<tls::Config>, shared: &Arc<Shared>) -> io::Result<Arc<Self>> {
        let ready = Arc::new(Ready::new());
        let listener = shared.workers.reactor.insert(socket, ready.clone(), |socket, token| {
            let (socket, last) = (Mutex::new(Some(socket)), AtomicU16::new(BACKLOG));
            let (state, fails) = (RunState::idle(), AtomicBool::new(false));
            let listener = Arc::new(Self { state, ready, shared: shared.clone(), token, tls, socket, last, fails });
            (listener.clone(), Told::Task(listener))
        })?;
        listener.notify();
        Ok(listener)
    }

    /// A connection has gone, or a pause is over.
    pub(crate) fn resume(self: &Arc<Self>) {
        self.ready.read.set();
        self.notify();
    }

    /// Closes the socket. What is in the backlog is reset, unless another process has the socket too.
    pub(crate) fn close(&self) {
        self.shared.workers.reactor.remove(self.token);
        if let Some(socket) = lock(&self.socket).take() {
            self.shared.workers.reactor.unwatch(socket.as_fd());
        }
    }

    /// The same socket once more; none once closed.
    pub(crate) fn try_clone(&self) -> io::Result<Option<ListeningSocket>> {
        let speaks_tls = self.tls.is_some();
        let again = |socket: &Listening| Ok(ListeningSocket { fd: socket.as_fd().try_clone_to_owned()?, speaks_tls });
        lock(&self.socket).as_ref().map(again).transpose()
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.socket).is_none()
    }

    fn notify(self: &Arc<Self>) {
        let task: Arc<dyn Task> = self.clone();
        self.shared.workers.notify(&task);
    }
}

/// Errors that concern the one connection that was to be accepted (accept(2), "Error handling"), not us.
fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
    };
    use io::ErrorKind::{NetworkUnreachable, PermissionDenied, TimedOut};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

impl Task for Listener {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn run(self: Arc<Self>) {
        let locked = lock(&self.socket);
        let Some(socket) = &*locked else { return };
        let drains = self.shared.has_told();
        if drains {
            // What has come since the last event is to be found too.
            self.ready.read.set();
        }
        for _ in 0..BATCH {
            let may_accept = !drains || self.last.load(Ordering::Relaxed) > 0;
            if may_accept && self.shared.is_full() {
                return self.shared.note(Event::MaxConnections, None);
            }
            let accepted = || self.ready.read.attempt(|| Ok((socket.accept()?, true)));
            match may_accept.then(accepted).flatten() {
                None if drains => {
                    drop(locked);
                    return self.close();
                }
                None => return,
                Some(Ok((socket, info))) => {
                    if self.fails.load(Ordering::Relaxed) {
                        self.fails.store(false, Ordering::Relaxed);
                        log::info!("connections are accepted again");
                    }
                    if drains {
                        // By this one run at a time.
                        self.last.fetch_sub(1, Ordering::Relaxed);
                    }
                    self.shared.connect(socket, info, self.tls.as_ref());
                }
                Some(Err(error)) if is_of_one_client(&error) => log::debug!("a connection was lost: {error}"),
                Some(Err(error)) => {
                    if !self.fails.swap(true, Ordering::Relaxed) {
                        log::warn!("cannot accept connections, trying again every {} ms: {error}", PAUSE.as_millis());
                    }
                    self.shared.workers.add_timer(Instant::now() + PAUSE, Waker::from(self.clone()));
                    return;
                }
            }
        }
        // There may be more: to the back of the queue.
        self.notify();
    }
}

impl Wake for Listener {
    fn wake(self: Arc<Self>) {
        self.resume();
    }
}
