//! Placeholder.

/// Why a Cargo package could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {}
pub(crate) fn module(path: &std::path::Path) -> Result<std::path::PathBuf, BuildError> { Ok(path.to_owned()) }
