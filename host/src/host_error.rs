//! Why a host did not start: one variant for each thing that it needs.

use std::{io, path::PathBuf};

use crate::{
    certificates::CertificateError,
    control::ControlError,
    guest::{EngineError, GrantError, LoadError},
    package::BuildError,
    router::RouteError,
};

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No module was set.
    #[error("there is no module to serve")]
    NoModule,
    /// Something is granted that is not there or is not what it should be.
    #[error("cannot grant")]
    Grant(#[from] GrantError),
    /// The state directory cannot be used.
    #[error("the state directory `{}` cannot be used", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be operated as asked for.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// There is no place for modules that operators send.
    #[error("modules that are sent cannot be kept: {0}")]
    Uploads(String),
    /// The sandbox cannot be set up as asked for.
    #[error("cannot set up the engine")]
    Engine(#[from] EngineError),
    /// Routes that cannot be told apart, or are wrong.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The module is not there, not a handler, or does not fit.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The handler's package cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// What is to be shown where TLS is spoken cannot be used.
    #[error("cannot speak TLS")]
    Certificate(#[from] CertificateError),
    /// TLS is to be spoken, and there is no certificate.
    #[error("cannot listen on `{address}` without a certificate")]
    NoCertificate {
        /// As it was given.
        address: String,
    },
    /// An address is in use, not ours, not allowed, or its name is unknown.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// As it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A host takes the place of one that is elsewhere, which would be noticed by nobody but clients.
    #[error("where a running host listens cannot be changed: {}; stop it and start it again", changes.join("; "))]
    Moved {
        /// What is otherwise, a text each.
        changes: Vec<String>,
    },
    /// A socket that was passed on might be meant for TLS, or cannot have it.
    #[error("cannot listen on `{socket}`, which was passed on: {reason}")]
    Passed {
        /// Its address.
        socket: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A socket that was passed on does not listen.
    #[error("cannot listen on a socket that was passed on")]
    Socket(#[source] io::Error),
    /// It was given up.
    #[error("it was told to stop before it served")]
    Stopped,
    /// Threads or poll cannot be set up.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}
