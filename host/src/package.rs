//! Placeholder.

/// Why a Cargo package could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {}
