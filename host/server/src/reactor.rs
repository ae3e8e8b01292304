//! The mio poll and its sources. One worker at a time polls (`Seats` sees to that); it copies what it found into the sources'
//! readiness under the lock of the table, releases the lock, and only then notifies, so that a slow leader holds up nobody.
//!
//! Tokens are slab index and generation: an event for a socket that is gone finds nobody.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::net::RecvFlags;
use slab::Slab;

use crate::readiness::Readiness;
use crate::socket::Socket;
use crate::sync::lock;
use crate::tcp_stream::Waiting;
use crate::timer::{NEVER, Timers};
use crate::workers::Task;

/// Events taken from the kernel at once; more would age in our hands.
const EVENTS: usize = 128;

/// Never a slab index with a generation: those have both halves.
const WAKER: Token = Token(usize::MAX);

/// What is known of one source's readiness. Written by the poller, read and cleared by the runner of the source's task.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) read: Readiness,
    pub(crate) write: Readiness,
    /// The peer has shut down its writing side: what is left to read ends with end of stream.
    pub(crate) read_closed: AtomicBool,
    /// Reset, or closed in both directions: of a Unix socket any close is, while TCP does not tell a peer's close from its half-close.
    pub(crate) gone: AtomicBool,
}

/// What one read takes at most: where little is expected, and where more is. The buffer is on the stack, where all of it is touched, and whoever
/// waits keeps that; but each read of a large body costs what waking its sender does.
pub(crate) const SHORT_READ: usize = 8 * 1024;
const LONG_READ: usize = 64 * 1024;

impl Ready {
    /// A new socket: nothing has come yet, and there is room to write.
    pub(crate) fn new() -> Self {
        Self {
            read: Readiness::new(false),
            write: Readiness::new(true),
            read_closed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// Reads once from the socket whose readiness this is, at most `max` bytes, and passes them on. None: it is not ready, and an edge
    /// will come.
    pub(crate) fn read_from(&self, socket: &Socket, max: usize, take: impl FnOnce(&[u8])) -> Option<io::Result<usize>> {
        if max > SHORT_READ { self.read_long(socket, max, take) } else { self.read::<SHORT_READ>(socket, max, take) }
    }

    /// By itself, so that its buffer is on no other's stack.
    #[inline(never)]
    fn read_long(&self, socket: &Socket, max: usize, take: impl FnOnce(&[u8])) -> Option<io::Result<usize>> {
        self.read::<LONG_READ>(socket, max, take)
    }

    fn read<const N: usize>(&self, socket: &Socket, max: usize, take: impl FnOnce(&[u8])) -> Option<io::Result<usize>> {
        let mut buffer = [MaybeUninit::uninit(); N];
        let buffer = &mut buffer[..max.min(N)];
        let room = buffer.len();
        let mut take = Some(take);
        self.read.attempt(|| {
            let ((bytes, _), _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?;
            if let Some(take) = take.take() {
                take(bytes);
            }
            // Also a read that drained the socket leaves the end of the stream to be read.
            let is_drained = (1..room).contains(&bytes.len()) && socket.is_drained_by_short_reads();
            Ok((bytes.len(), !is_drained || self.read_closed.load(Ordering::SeqCst)))
        })
    }
}

/// Who is told that a source's readiness has changed.
pub(crate) enum Told {
    Task(Arc<dyn Task>),
    Waiting(Arc<Waiting>),
}

struct Entry {
    generation: u32,
    ready: Arc<Ready>,
    told: Told,
}

struct Table {
    entries: Slab<Entry>,
    generation: u32,
}

pub(crate) struct Reactor {
    poll: Mutex<(Poll, Events)>,
    registry: Registry,
    waker: mio::Waker,
    table: Mutex<Table>,
    pub(crate) timers: Timers,
    /// Until when the poller sleeps, in the timers' milliseconds; 0 while it does not.
    asleep_until: AtomicU64,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = mio::Waker::new(&registry, WAKER)?;
        Ok(Self {
            poll: Mutex::new((poll, Events::with_capacity(EVENTS))),
            registry,
            waker,
            table: Mutex::new(Table { entries: Slab::new(), generation: 0 }),
            timers: Timers::new(),
            asleep_until: AtomicU64::new(0),
        })
    }

    /// Registers `source`, which moves into what `make` makes of it and of the token to remove it by. It also says who is told.
    pub(crate) fn insert<S: AsFd, T>(
        &self,
        source: S,
        ready: Arc<Ready>,
        make: impl FnOnce(S, Token) -> (T, Told),
    ) -> io::Result<T> {
        let mut table = lock(&self.table);
        table.generation = table.generation.wrapping_add(1);
        let generation = table.generation;
        let vacant = table.entries.vacant_entry();
        let token = Token(((generation as usize) << 32) | vacant.key());
        // An event that comes before the entry is there waits for the lock of the table.
        let fd = source.as_fd().as_raw_fd();
        self.registry.register(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE)?;
        let (made, told) = make(source, token);
        vacant.insert(Entry { generation, ready, told });
        Ok(made)
    }

    /// Forgets a source. Closing its file descriptor takes it out of the kernel's set.
    pub(crate) fn remove(&self, token: Token) {
        let mut table = lock(&self.table);
        let (index, generation) = split(token);
        if table.entries.get(index).is_some_and(|entry| entry.generation == generation) {
            let entry = table.entries.remove(index);
            // What it holds may have more to remove.
            drop(table);
            drop(entry);
        }
    }

    /// Takes a source out of the kernel's set that is open elsewhere too, and so not closed when we close it.
    pub(crate) fn unwatch(&self, source: BorrowedFd<'_>) {
        if let Err(error) = self.registry.deregister(&mut SourceFd(&source.as_raw_fd())) {
            log::debug!("a source cannot be taken out: {error}");
        }
    }

    /// Every task that has a source, for shutdown.
    pub(crate) fn tasks(&self) -> Vec<Arc<dyn Task>> {
        let task = |entry: &Entry| match &entry.told {
            Told::Task(task) => Some(task.clone()),
            Told::Waiting(_) => None,
        };
        lock(&self.table).entries.iter().filter_map(|(_, entry)| task(entry)).collect()
    }

    /// Wakes all that waits, for the last time. A future that waits holds the waker that holds it, and would never be dropped.
    pub(crate) fn end(&self) {
        let waiting = |entry: &Entry| match &entry.told {
            Told::Task(_) => None,
            Told::Waiting(who) => Some(who.clone()),
        };
        let waiting: Vec<_> = lock(&self.table).entries.iter().filter_map(|(_, entry)| waiting(entry)).collect();
        waiting.into_iter().for_each(|who| who.wake());
        self.timers.fire_all();
    }

    /// Makes a sleeping poller return.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the reactor: {error}");
        }
    }

    /// A timer was added that is earlier than all others: the poller must not sleep past it.
    pub(crate) fn wake_for_timer(&self, at: u64) {
        if at < self.asleep_until.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Waits for events (if `wait`), runs the timers that are due, and returns the tasks that must be pushed to the run queue.
    pub(crate) fn poll(&self, wait: bool) -> Vec<Arc<dyn Task>> {
        let mut poll = lock(&self.poll);
        let (poll, events) = &mut *poll;
        // Publish first, look at the timers second: who adds a timer does it the other way round, so one sees the other.
        self.asleep_until.store(if wait { NEVER } else { 0 }, Ordering::SeqCst);
        let timeout = match self.timers.first() {
            _ if !wait => Some(Duration::ZERO),
            NEVER => None,
            first => {
                self.asleep_until.store(first, Ordering::SeqCst);
                Some(Duration::from_millis(first.saturating_sub(self.timers.now())))
            }
        };
        let result = poll.poll(events, timeout);
        self.asleep_until.store(0, Ordering::SeqCst);
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            Err(error) => {
                log::error!("cannot poll for events: {error}");
                events.clear();
            }
        }
        let (mut woken, mut waiting) = (Vec::new(), Vec::new());
        {
            let table = lock(&self.table);
            for event in events.iter() {
                let (index, generation) = split(event.token());
                let Some(entry) = table.entries.get(index).filter(|entry| entry.generation == generation) else {
                    continue;
                };
                let ready = &entry.ready;
                if event.is_read_closed() {
                    ready.read_closed.store(true, Ordering::SeqCst);
                }
                if event.is_error() || event.is_write_closed() {
                    ready.gone.store(true, Ordering::SeqCst);
                }
                if event.is_readable() || event.is_read_closed() {
                    ready.read.set();
                }
                if event.is_writable() || event.is_write_closed() {
                    ready.write.set();
                }
                match &entry.told {
                    Told::Task(task) => woken.push(task.clone()),
                    Told::Waiting(who) => waiting.push(who.clone()),
                }
            }
        }
        woken.retain(|task| task.state().notify());
        waiting.into_iter().for_each(|who| who.wake());
        self.timers.fire();
        woken
    }
}

fn split(token: Token) -> (usize, u32) {
    // On purpose: the halves of the token.
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is the generation, 32 bits")]
    let generation = (token.0 >> 32) as u32;
    (token.0 & 0xffff_ffff, generation)
}
