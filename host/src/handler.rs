//! A handler: a name and the revision that serves it, with what its guests may do. Immutable so far.

use std::sync::Arc;

use crate::guest::{Grants, Limits, LoadedModule};

/// A named slot that answers requests; shared by all workers.
pub(crate) struct Handler {
    pub(crate) name: Arc<str>,
    pub(crate) revision: Arc<LoadedModule>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) limits: Limits,
}
