//! What a running host tells about itself: plain data, made by [`Operator`](crate::operator::Operator), read back by the command line.

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
    /// In the order of the configuration.
    pub handlers: Vec<HandlerStatus>,
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
