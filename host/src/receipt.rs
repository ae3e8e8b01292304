//! What a swap reports about itself: a text for people, JSON for programs, the same facts.
//!
//! A receipt is written when a revision is live, and completed when the one before it has drained. Plain data; the control
//! socket's client reads it back.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::format_size;

/// What happened to a handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// Which handler.
    pub handler: String,
    /// What was done.
    pub action: Action,
    /// The number of the revision before; none if the handler is new.
    pub from: Option<u32>,
    /// The number of the revision that is live now, or has its share.
    pub to: u32,
    /// SHA-256 of the module, in hexadecimal.
    pub sha256: String,
    /// Where the machine code came from: `compiled 142 ms`, `cached`, `precompiled`, `loaded` (it was still there).
    pub code: String,
    /// What the probe said; none if there is no probe, or none was needed.
    pub probe: Option<Probed>,
    /// When it was published, RFC 3339.
    pub live: String,
    /// The share of requests, for a canary (`10%`).
    pub share: Option<String>,
    /// What the module imports that the one before did not.
    pub new_imports: Vec<String>,
    /// Whether a restart serves this revision.
    pub outlives_restart: bool,
    /// What became of the revision before; none while requests still run on it.
    pub drained: Option<Drained>,
    /// Revisions that were freed.
    pub freed: Vec<Freed>,
    /// What else the operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// The handler is new.
    Add,
    /// A revision was replaced by a new one.
    Swap,
    /// The module and all settings are what they were: nothing was done.
    Unchanged,
    /// A new revision gets a share of the requests.
    Canary,
    /// The canary gets all requests.
    Promote,
    /// The canary gets none any more.
    Abort,
    /// An earlier revision is back.
    Rollback,
    /// The handler is gone.
    Remove,
}

/// What a probe said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// The status of the answer.
    pub status: u16,
    /// Milliseconds until it was complete.
    pub ms: f64,
}

/// What became of a revision that was replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Its number.
    pub revision: u32,
    /// Milliseconds until its last request had ended.
    pub ms: f64,
    /// Requests that were running when it was replaced, and ended by themselves.
    pub finished: u64,
    /// Requests that were cut when the time for draining was over.
    pub cut: u64,
    /// Whether it stays loaded, for rollback.
    pub kept: bool,
}

/// A revision that is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Freed {
    /// Its number.
    pub revision: u32,
    /// Bytes of machine code and data that it had.
    pub bytes: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  ", self.handler)?;
        match (self.action, self.from) {
            (Action::Unchanged, _) => return write!(f, "r{}  unchanged", self.to),
            (Action::Remove, _) => write!(f, "r{}  removed", self.to)?,
            (Action::Canary, Some(from)) => {
                write!(f, "r{from}, canary r{} at {}", self.to, self.share.as_deref().unwrap_or("?"))?;
            }
            (Action::Add, _) | (_, None) => write!(f, "r{}  new", self.to)?,
            (action, Some(from)) => {
                write!(f, "r{from} -> r{}", self.to)?;
                match action {
                    Action::Promote => f.write_str("  promoted")?,
                    Action::Abort => f.write_str("  aborted")?,
                    Action::Rollback => f.write_str("  rolled back")?,
                    _ => {}
                }
            }
        }
        if self.action != Action::Remove {
            write!(f, "  sha256:{}…  {}", &self.sha256[..self.sha256.len().min(12)], self.code)?;
        }
        if let Some(probe) = &self.probe {
            write!(f, "  probe {} in {:.1} ms", probe.status, probe.ms)?;
        }
        // The time of day: who reads it knows the date.
        write!(f, "  live {}", self.live.get(11..23).unwrap_or(&self.live))?;
        for import in &self.new_imports {
            write!(f, "\n       new import {import}")?;
        }
        if let Some(drained) = &self.drained {
            let Drained { revision, ms, finished, cut, kept } = drained;
            write!(f, "\n       r{revision} drained in {ms:.0} ms: {finished} finished, {cut} cut")?;
            if *kept {
                f.write_str(", kept for rollback")?;
            }
        }
        for Freed { revision, bytes } in &self.freed {
            write!(f, "\n       r{revision} freed ({} of code and images)", format_size(*bytes))?;
        }
        for note in &self.notes {
            write!(f, "\n       {note}")?;
        }
        Ok(())
    }
}

/// Milliseconds with three decimals, as receipts have them.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
