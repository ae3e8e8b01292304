//! What an operator wants to know of what the server does by itself: bounds that were hit, clients that were cut. Counted where it happens,
//! on any thread. Of a bound the first is told in the log at once, and how many followed a minute later, if any did.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::server::Shared;

/// What was told of a kind is not told again for so long.
const QUIET: Duration = Duration::from_secs(60);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// As many connections were open as may be, and others wait in the backlog.
    MaxConnections,
    /// A connection was closed at once, since its peer had too many.
    MaxConnectionsPerPeer,
    /// The head of a request did not arrive in time: 408, or the end of the connection on HTTP/2.
    HeadTimeout,
    /// A TLS handshake failed.
    HandshakeFailed,
    /// One did not end in time.
    HandshakeTimeout,
    /// A proxy did not say who its client is, or not in time.
    ProxyRefused,
    /// A request's body did not arrive in time, or too slowly.
    BodyTimeout,
    /// A client took nothing of its answer for too long, and was cut.
    WriteTimeout,
    /// A client was cut for the HTTP/2 frames it sent that are no part of a request.
    Flood,
    /// A request was answered 503, since there was no room for it to wait.
    QueueFull,
    /// A request was answered 503, since it had waited too long to be started.
    QueueTimeout,
    /// A client went away before its request was started.
    ClientGone,
    /// The server has ended before a request was started.
    Stopped,
    /// What a client sent was no request.
    Malformed,
    /// A request was refused for what it is: 400, 405, 413, 431, 501.
    Refused,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::MaxConnections,
        Self::MaxConnectionsPerPeer,
        Self::HeadTimeout,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::ProxyRefused,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::Flood,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ClientGone,
        Self::Stopped,
        Self::Malformed,
        Self::Refused,
    ];

    /// The word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxConnections => "max_connections",
            Self::MaxConnectionsPerPeer => "max_connections_per_peer",
            Self::HeadTimeout => "head_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ProxyRefused => "proxy_refused",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Flood => "http2_flood",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ClientGone => "client_gone",
            Self::Stopped => "stopped",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
        }
    }

    /// What the log says of it, if it is a bound; the rest is as clients are.
    fn warning(self) -> Option<&'static str> {
        Some(match self {
            Self::MaxConnections => "as many connections are open as may be, others wait in the backlog",
            Self::MaxConnectionsPerPeer => "connections are closed at once, since their peer has too many",
            Self::HeadTimeout => "clients are cut, since the heads of their requests do not arrive in time",
            Self::HandshakeTimeout => "clients are cut, since their TLS handshakes take too long",
            Self::ProxyRefused => {
                "connections are closed, since a proxy does not say who its client is (PROXY protocol, version 2)"
            }
            Self::BodyTimeout => "requests are refused, since their bodies come too slowly",
            Self::WriteTimeout => "clients are cut, since they take nothing of their answers",
            Self::Flood => "clients are cut, since they send too many HTTP/2 frames that are no part of a request",
            Self::QueueFull => "requests are answered 503, since the queue is full",
            Self::QueueTimeout => "requests are answered 503, since they have waited too long to be started",
            Self::HandshakeFailed | Self::ClientGone | Self::Stopped | Self::Malformed | Self::Refused => return None,
        })
    }
}

/// What a server has counted, see [`Handle::counts`](crate::Handle::counts).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that are open now.
    pub connections: usize,
    /// Connections so far, those included that were closed at once.
    pub accepted: u64,
    /// Requests that run or wait in handlers now.
    pub open: usize,
    /// Requests that wait to be started now.
    pub queued: usize,
    events: [u64; Event::ALL.len()],
}

impl Counts {
    /// How often that was so far.
    pub fn of(&self, event: Event) -> u64 {
        self.events[event as usize]
    }
}

/// The counts of a running server, for whoever looks at them later. Keeps no server alive.
#[derive(Clone)]
pub struct Counters(Weak<Shared>);

impl Counters {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }

    /// As they are now; none once the server has ended.
    pub fn counts(&self) -> Option<Counts> {
        self.0.upgrade().map(|shared| shared.counts())
    }

    /// Requests of one [`Lane`](crate::Lane) that wait to be started now.
    pub fn queued(&self, lane: u64) -> usize {
        self.0.upgrade().map_or(0, |shared| shared.workers.seats.queued_in(lane))
    }
}

/// Relaxed, all of it: nothing else is published with a count.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicU64,
    kinds: [Kind; Event::ALL.len()],
}

#[derive(Default)]
struct Kind {
    count: AtomicU64,
    /// So many the log knows of.
    told: AtomicU64,
    /// It was told, and a timer runs until it may be again.
    is_quiet: AtomicBool,
}

impl Kind {
    /// How many the log does not know of; from now on it does.
    fn untold(&self) -> u64 {
        let count = self.count.load(Ordering::Relaxed);
        count - self.told.swap(count, Ordering::Relaxed).min(count)
    }
}

impl Shared {
    /// Counts it, and tells it if it is news.
    pub(crate) fn note(self: &Arc<Self>, event: Event, peer: Option<SocketAddr>) {
        let kind = &self.tally.kinds[event as usize];
        kind.count.fetch_add(1, Ordering::Relaxed);
        let Some(text) = event.warning() else { return };
        if kind.is_quiet.load(Ordering::Relaxed) || kind.is_quiet.swap(true, Ordering::Relaxed) {
            return;
        }
        kind.told.fetch_add(1, Ordering::Relaxed);
        match peer {
            Some(peer) => log::warn!("{text}: first {peer}"),
            None => log::warn!("{text}"),
        }
        self.remind(event);
    }

    fn remind(self: &Arc<Self>, event: Event) {
        let reminder = Reminder { shared: Arc::downgrade(self), event };
        self.workers.add_timer(Instant::now() + QUIET, Waker::from(Arc::new(reminder)));
    }

    /// Tells what has not been told; whether there was any.
    fn tell_rest(&self, event: Event) -> bool {
        let untold = self.tally.kinds[event as usize].untold();
        if let Some(text) = event.warning().filter(|_| untold > 0) {
            log::warn!("{text}: {untold} more since this was said");
        }
        untold > 0
    }

    /// The server ends.
    pub(crate) fn tell_all(&self) {
        for event in Event::ALL {
            self.tell_rest(event);
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let (connections, queued) = (self.connections(), self.workers.seats.queued());
        let accepted = self.tally.accepted.load(Ordering::Relaxed);
        let events = Event::ALL.map(|event| self.tally.kinds[event as usize].count.load(Ordering::Relaxed));
        Counts { connections, accepted, open: self.workers.open(), queued, events }
    }
}

/// The minute is over in which an event is not told again.
struct Reminder {
    shared: Weak<Shared>,
    event: Event,
}

impl Wake for Reminder {
    fn wake(self: Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        if shared.tell_rest(self.event) {
            shared.remind(self.event);
        } else {
            shared.tally.kinds[self.event as usize].is_quiet.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_place_and_a_name_of_its_own() {
        for (index, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, index);
            assert!(Event::ALL[..index].iter().all(|other| other.name() != event.name()), "{event:?}");
        }
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let kind = Kind::default();
        kind.count.fetch_add(3, Ordering::Relaxed);
        kind.told.fetch_add(1, Ordering::Relaxed);
        assert_eq!([kind.untold(), kind.untold()], [2, 0]);
    }
}
