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
    /// Where the machine code came from: `compiled in 142 ms`, `cached`, `precompiled`, `loaded` (it was still there).
    pub code: String,
    /// What the probe said; none if there is no probe, or none was needed.
    pub probe: Option<Probed>,
    /// When it was published, RFC 3339.
    pub live: String,
    /// Milliseconds from the saving of a watched file or package until it was live.
    pub saved_ms: Option<f64>,
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
    /// Something about the handler was changed that needs no new revision: routes, watch, probe, guard, drain, keep.
    Adjust,
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

impl Action {
    /// As in JSON, and in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Swap => "swap",
            Self::Unchanged => "unchanged",
            Self::Canary => "canary",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Adjust => "adjust",
            Self::Remove => "remove",
        }
    }
}

impl Receipt {
    /// Whether both tell of the same thing, of which one may know more.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        (&self.handler, self.action, self.to, &self.live) == (&other.handler, other.action, other.to, &other.live)
    }

    /// What was done, on one line, without the handler.
    pub fn headline(&self) -> String {
        let to = self.to;
        let mut line = match (self.action, self.from) {
            (Action::Unchanged, _) => return format!("r{to} unchanged"),
            (Action::Remove, _) => return format!("r{to} removed"),
            (Action::Adjust, _) => return format!("r{to} adjusted"),
            (Action::Add, _) | (_, None) => format!("r{to} new"),
            (Action::Canary, Some(from)) => {
                format!("r{from}, canary r{to} {}", self.share.as_deref().unwrap_or_default())
            }
            (action, Some(from)) => {
                let how = match action {
                    Action::Promote => "  promoted",
                    Action::Abort => "  aborted",
                    Action::Rollback => "  rolled back",
                    _ => "",
                };
                format!("r{from} -> r{to}{how}")
            }
        };
        line.push_str(&format!("  sha256:{}…  {}", &self.sha256.get(..12).unwrap_or(&self.sha256), self.code));
        if let Some(Probed { status, ms }) = &self.probe {
            line.push_str(&format!("  probe {status} in {ms:.1} ms"));
        }
        // The time of day: who reads it knows the date.
        line.push_str("  live ");
        line.push_str(self.live.get(11..23).unwrap_or(&self.live));
        if let Some(ms) = self.saved_ms {
            line.push_str(&format!(", {ms:.0} ms after it was saved"));
        }
        line
    }

    /// What became of the revision before and of those that are not kept any more, on one line. None while that is not known, or if
    /// there was none.
    pub fn farewell(&self) -> Option<String> {
        let drained = self.drained.as_ref().map(|Drained { revision, ms, finished, cut, kept }| {
            let kept = if *kept { ", kept for rollback" } else { "" };
            format!("r{revision} drained in {ms:.0} ms: {finished} finished, {cut} cut{kept}")
        });
        let freed = self
            .freed
            .iter()
            .map(|Freed { revision, bytes }| format!("r{revision} freed ({} of code and images)", format_size(*bytes)));
        let parts: Vec<_> = drained.into_iter().chain(freed).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", self.handler, self.headline())?;
        let imports = self.new_imports.iter().map(|import| format!("new import {import}"));
        let is_change = matches!(self.action, Action::Swap | Action::Promote | Action::Rollback);
        let forgotten =
            (is_change && !self.outlives_restart).then(|| "until a restart, which serves something else".to_owned());
        for line in imports.chain(forgotten).chain(self.farewell()).chain(self.notes.iter().cloned()) {
            write!(f, "\n       {line}")?;
        }
        Ok(())
    }
}

/// Milliseconds with three decimals, as receipts have them.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
