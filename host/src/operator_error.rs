//! Why something that an operator asked for was not done. Whatever it is, what was served before is served on.

use crate::{guest::LoadError, host_error::HostError, package::BuildError, router::RouteError};

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// No handler has this name.
    #[error("there is no handler `{name}`; there is {known}")]
    UnknownHandler {
        /// What was asked for.
        name: String,
        /// What there is, for people.
        known: String,
    },
    /// No request has this id, any more.
    #[error("no request `{id}` is running; `astra-host ps` lists them")]
    UnknownRequest {
        /// What was asked for.
        id: String,
    },
    /// Somebody else is at it.
    #[error("handler `{name}` is being swapped just now; try again when that is done")]
    Busy {
        /// The handler.
        name: String,
    },
    /// Another revision has become the live one while this was prepared.
    #[error("handler `{name}` was changed meanwhile; look at `astra-host status` and try again")]
    Overtaken {
        /// The handler.
        name: String,
    },
    /// Revisions that were replaced still have requests, and too many of them.
    #[error("{count} revisions of handler `{name}` are still draining; try again when one has (`astra-host status`)")]
    Draining {
        /// The handler.
        name: String,
        /// How many.
        count: usize,
    },
    /// There is a canary already.
    #[error("handler `{name}` has a canary, r{canary}: promote or abort it first")]
    HasCanary {
        /// The handler.
        name: String,
        /// The canary's revision.
        canary: u32,
    },
    /// There is none to promote or abort.
    #[error("handler `{name}` has no canary")]
    NoCanary {
        /// The handler.
        name: String,
    },
    /// No revision is kept that could be gone back to.
    #[error("handler `{name}` has nothing to roll back to: no earlier revision is kept")]
    NothingToRollBackTo {
        /// The handler.
        name: String,
    },
    /// All that are kept were rolled back from.
    #[error("handler `{name}` was rolled back from every revision that is kept; name the one that you want: {kept}")]
    AllWithdrawn {
        /// The handler.
        name: String,
        /// What there is, for people.
        kept: String,
    },
    /// That revision is not kept.
    #[error("handler `{name}` does not keep r{number}; it keeps {kept}")]
    NotKept {
        /// The handler.
        name: String,
        /// What was asked for.
        number: u32,
        /// What there is, for people.
        kept: String,
    },
    /// No new host has taken this one's place.
    #[error("the host was not upgraded, and serves on: {reason}")]
    Upgrade {
        /// Why not.
        reason: String,
    },
    /// A new host is being started already.
    #[error("an upgrade is under way (process {pid}): wait for its end, or `kill {pid}`")]
    Upgrading {
        /// The process that is to take this one's place.
        pid: u32,
    },
    /// The host is about to end.
    #[error("the host is stopping")]
    Stopping,
    /// An upgrade has come in between.
    #[error("the host was replaced meanwhile by process {pid}, which knows nothing of this: try again")]
    Replaced {
        /// The host that serves now.
        pid: u32,
    },
    /// The Cargo package could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The module cannot be served.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The new revision did not answer its probe as it should.
    #[error("the probe of handler `{name}` failed: {reason}")]
    Probe {
        /// The handler.
        name: String,
        /// What happened instead.
        reason: String,
    },
    /// The module imports what the one before did not, and that is refused.
    #[error("the module imports what r{from} does not: {}", imports.join(", "))]
    NewImports {
        /// The revision before.
        from: u32,
        /// The imports.
        imports: Vec<String>,
    },
    /// Routes that cannot be told apart, or are wrong.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The configuration cannot be read.
    #[error("the configuration cannot be used: {reason}")]
    Config {
        /// Why not, with all causes.
        reason: String,
    },
    /// Keys were changed that a running host cannot change.
    #[error("{place}{how} is needed to change {}", keys.join(", "))]
    NeedsRestart {
        /// The configuration file, if there is one, as an error begins.
        place: String,
        /// What can change them.
        how: &'static str,
        /// Which.
        keys: Vec<String>,
    },
    /// Nobody has said where the configuration is from.
    #[error("this host has no configuration to reload")]
    NothingToReload,
    /// The swap could not be recorded, so that it would not outlive a restart.
    #[error("the swap cannot be recorded in the state directory, so it was not made; `--until-restart` does without")]
    State(#[source] std::io::Error),
    /// The host cannot do it.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What an error means to the one who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such thing.
    Unknown,
    /// Not now, or not in this order.
    Conflict,
    /// What was handed in cannot be used.
    Unusable,
    /// The host ends.
    Stopping,
    /// The host failed.
    Failed,
}

impl OperatorError {
    /// What it means to the one who asked.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownHandler { .. } | Self::UnknownRequest { .. } => Refusal::Unknown,
            Self::Busy { .. }
            | Self::Overtaken { .. }
            | Self::AllWithdrawn { .. }
            | Self::Draining { .. }
            | Self::HasCanary { .. }
            | Self::NoCanary { .. }
            | Self::NothingToRollBackTo { .. }
            | Self::NotKept { .. }
            | Self::NothingToReload
            | Self::Upgrading { .. }
            | Self::Upgrade { .. } => Refusal::Conflict,
            Self::Stopping | Self::Replaced { .. } | Self::Build(BuildError::Cancelled { .. }) => Refusal::Stopping,
            Self::Build(_)
            | Self::Load(_)
            | Self::Probe { .. }
            | Self::NewImports { .. }
            | Self::Route(_)
            | Self::Config { .. }
            | Self::NeedsRestart { .. } => Refusal::Unusable,
            Self::State(_) | Self::Host(_) => Refusal::Failed,
        }
    }
}
