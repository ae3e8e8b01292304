//! What outlives a restart.
pub(crate) struct StateDir;
