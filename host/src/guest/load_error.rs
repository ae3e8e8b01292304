//! Why a module cannot be served: one variant for each thing that a file can turn out to be.
//!
//! The messages are for the person who typed the command: what was found, what is accepted, what to do. They never
//! reach a client.

use std::{io, path::PathBuf, time::Duration};

use super::engine::EngineError;
use crate::config::format_size;

/// What is accepted, for errors that found something else.
const ACCEPTED: &str = "a component that exports `wasi:http/incoming-handler@0.2`, `wasi:http/handler@0.3` or `wasi:cli/run`, or a core module with a function `_start`";

/// Why a file cannot be served. Each says what was found and what is accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is text or some other format, or no file at all.
    #[error("`{}` is {found}, not binary WebAssembly; accepted is {ACCEPTED}", path.display())]
    NotWasm {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// It ends too early.
    #[error("`{}` is truncated: it ends in the middle of a section after {size} bytes; was it copied completely?", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// It begins like WebAssembly and is not.
    #[error("`{}` is not valid WebAssembly", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: wasmparser::BinaryReaderError,
    },
    /// A core module that is no program.
    #[error(
        "`{}` is a core module without {lacks}, accepted is {ACCEPTED}; build it for the target `wasm32-wasip2`, or make it a component with `wasm-tools component new`",
        path.display()
    )]
    CoreModule {
        /// The file.
        path: PathBuf,
        /// What it would need to be one.
        lacks: &'static str,
    },
    /// A component with other exports.
    #[error("`{}` is a component that exports {found}, accepted is {ACCEPTED}", path.display())]
    NoHandler {
        /// The file.
        path: PathBuf,
        /// Its exports, for people.
        found: String,
    },
    /// Compiled code that nobody has vouched for.
    #[error(
        "`{}` is a precompiled module; it is machine code and cannot be checked, so it is loaded only with `--trust-precompiled`",
        path.display()
    )]
    Untrusted {
        /// The file.
        path: PathBuf,
    },
    /// Compiled code of another wasmtime, machine or configuration, or of something else than a handler.
    #[error("`{}` is a precompiled module that cannot be used here; compile it again with `astra-host compile`: {reason}", path.display())]
    Precompiled {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// It is invalid, or uses a feature that is off.
    #[error("`{}` cannot be compiled: {reason}", path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// The compiler's reason.
        reason: String,
    },
    /// It takes longer to compile than a module may that comes while the host serves.
    #[error("`{}` takes longer than {} to compile; raise `compile.timeout`", path.display(), humantime::format_duration(*timeout))]
    CompileTimeout {
        /// The file.
        path: PathBuf,
        /// What there was.
        timeout: Duration,
    },
    /// It takes more memory to compile than a module may that comes while the host serves.
    #[error("`{}` takes more than {} of memory to compile; raise `compile.memory`", path.display(), format_size(*memory))]
    CompileMemory {
        /// The file.
        path: PathBuf,
        /// What there was, in bytes.
        memory: u64,
    },
    /// It imports something that no guest here gets.
    #[error("`{}` imports `{import}`, which this host does not provide; it provides WASI 0.2 and 0.3, with WASI HTTP, and to core modules WASI 0.1 (`wasi_snapshot_preview1`)", path.display())]
    MissingImport {
        /// The file.
        path: PathBuf,
        /// The import.
        import: String,
    },
    /// Its imports have the right names and the wrong types.
    #[error("`{}` cannot be linked: {reason}", path.display())]
    Link {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The first instance could not be made.
    #[error("`{}` cannot be instantiated: {reason}", path.display())]
    Instantiate {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// What guests of its kind run on could not be set up.
    #[error("`{}` cannot be served: what WASI 0.3 needs could not be set up", path.display())]
    Engine {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: EngineError,
    },
    /// Its memory starts with more than any may have.
    #[error("`{}` does not fit: {reason}; raise `{key}`", path.display())]
    DoesNotFit {
        /// The file.
        path: PathBuf,
        /// What it needs.
        reason: String,
        /// What to change.
        key: &'static str,
    },
}

impl LoadError {
    /// The same of a file that was handed in under another name, which the one who reads this knows.
    pub(crate) fn called(mut self, name: &str) -> Self {
        match &mut self {
            Self::Read { path, .. }
            | Self::NotWasm { path, .. }
            | Self::Truncated { path, .. }
            | Self::Malformed { path, .. }
            | Self::CoreModule { path, .. }
            | Self::NoHandler { path, .. }
            | Self::Untrusted { path, .. }
            | Self::Precompiled { path, .. }
            | Self::Compile { path, .. }
            | Self::CompileTimeout { path, .. }
            | Self::CompileMemory { path, .. }
            | Self::MissingImport { path, .. }
            | Self::Link { path, .. }
            | Self::Instantiate { path, .. }
            | Self::Engine { path, .. }
            | Self::DoesNotFit { path, .. } => *path = PathBuf::from(name),
        }
        self
    }
}
