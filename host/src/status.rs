//! What a running host tells about itself: plain data, made by [`Operator`](crate::operator::Operator), read back by the command line.

use std::collections::BTreeMap;

use astra_server::{Counts, Event};
use serde::{Deserialize, Serialize};

use crate::receipt::Receipt;

/// A whole host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Of astra-host.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// Where it listens, `http://127.0.0.1:8080`.
    pub listen: Vec<String>,
    /// Where its configuration is from; none if it was given by flags.
    pub config: Option<String>,
    /// What the server has to do, and has done by itself.
    #[serde(default)]
    pub traffic: Traffic,
    /// In the order of the configuration.
    pub handlers: Vec<HandlerStatus>,
}

/// Connections and requests of all handlers, from the start of this process on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections that are open now.
    pub connections: u64,
    /// Connections so far, those included that were closed at once.
    pub accepted: u64,
    /// Requests that run or wait in guests now.
    pub in_flight: u64,
    /// Requests that wait to be started now.
    pub queued: u64,
    /// How often what has happened, by the names of [`astra_server::Event`].
    pub events: BTreeMap<String, u64>,
}

impl From<&Counts> for Traffic {
    fn from(counts: &Counts) -> Self {
        let events = Event::ALL.map(|event| (event.name().to_owned(), counts.of(event)));
        Self {
            connections: counts.connections as u64,
            accepted: counts.accepted,
            in_flight: counts.open as u64,
            queued: counts.queued as u64,
            events: events.into(),
        }
    }
}

/// One handler.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HandlerStatus {
    /// Its name.
    pub name: String,
    /// `/hello/*`, `api.example.com/v1/*`.
    pub routes: Vec<String>,
    /// What serves it.
    pub revision: RevisionStatus,
    /// What serves a share of it.
    pub canary: Option<CanaryStatus>,
    /// Replaced revisions that are still loaded, the newest first.
    pub kept: Vec<RevisionStatus>,
    /// Replaced revisions that are not kept, and wait for their last requests.
    pub draining: Vec<RevisionStatus>,
    /// Requests that run or wait now, on any revision.
    pub in_flight: u64,
    /// Requests so far, on all revisions.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Requests that wait to be started now.
    #[serde(default)]
    pub queued: u64,
    /// Requests that were answered 503 because the queue was full, or they had waited there too long.
    #[serde(default)]
    pub refused: u64,
    /// Why a restart without the state directory would serve something else: `differs from astra.toml`.
    pub differs: Option<String>,
    /// What the guard is watching for, until when.
    pub guard: Option<String>,
    /// What happened last.
    pub last: Option<Receipt>,
}

/// One revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RevisionStatus {
    /// Its number, from 1.
    pub number: u32,
    /// SHA-256 of the module, in hexadecimal.
    pub sha256: String,
    /// Where the module came from: a path, or `upload`.
    pub source: String,
    /// When it was loaded, RFC 3339.
    pub since: String,
    /// Requests that run or wait on it now.
    pub in_flight: u64,
    /// Requests so far.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Whether it was rolled back from: going back without a number passes it over.
    pub withdrawn: bool,
}

/// A revision with a share of the requests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CanaryStatus {
    /// `10%`.
    pub share: String,
    /// What has it.
    pub revision: RevisionStatus,
}

/// One request that runs or waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RequestStatus {
    /// Its id, as in the log and in `x-request-id`.
    pub id: String,
    /// The handler that serves it.
    pub handler: String,
    /// The number of the revision that serves it.
    pub revision: u32,
    /// Milliseconds since it was given to its guest.
    pub age_ms: f64,
    /// Milliseconds of CPU time; none where the system does not tell.
    pub cpu_ms: Option<f64>,
    /// `running`, or what it waits for: `body` (more of the request's), `sleep`, `client` (which takes no more of the response), `io` (anything
    /// else), several joined by commas.
    pub waits_for: String,
    /// The client's address; none on a Unix socket.
    pub peer: Option<String>,
    /// The method.
    pub method: String,
    /// The path, without the query, which may hold secrets.
    pub path: String,
}
