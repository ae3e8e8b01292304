//! What can be done to a running host: look at it, swap modules, roll back, cut requests, reload, stop.

use std::path::Path;

use crate::{
    config::Share,
    events::Events,
    operator_error::OperatorError,
    receipt::Receipt,
    status::{RequestStatus, Status},
};

/// What can be done to a running host. Cheap to clone; any thread may use it, and calls may take long (compiling, draining).
#[derive(Clone)]
pub struct Operator(());

/// How to swap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapOptions {
    /// The share of the requests that the new revision gets; all, and at once, unless set.
    pub canary: Option<Share>,
    /// Whether to refuse a module that imports what the one before did not.
    pub no_new_imports: bool,
    /// Whether a restart serves the configured module again.
    pub until_restart: bool,
    /// Whether to return when the new revision is live, rather than when the one before has drained.
    pub no_wait: bool,
}

impl Operator {
    /// The whole host.
    pub fn status(&self) -> Status {
        unimplemented!()
    }

    /// Every request that runs or waits, the oldest first.
    pub fn requests(&self) -> Vec<RequestStatus> {
        unimplemented!()
    }

    /// Cuts the request with this id.
    ///
    /// # Errors
    /// None has it.
    pub fn kill(&self, _id: &str) -> Result<RequestStatus, OperatorError> {
        unimplemented!()
    }

    /// Publishes the module in the file at `module` as a new revision of `handler`; `source` is what status calls it.
    ///
    /// # Errors
    /// It was not published; what served before serves on.
    pub fn swap(
        &self,
        _handler: &str,
        _module: &Path,
        _source: &str,
        _options: &SwapOptions,
    ) -> Result<Receipt, OperatorError> {
        unimplemented!()
    }

    /// Goes back to revision `to`, or to the newest that is kept.
    ///
    /// # Errors
    /// It is not kept.
    pub fn rollback(&self, _handler: &str, _to: Option<u32>, _no_wait: bool) -> Result<Receipt, OperatorError> {
        unimplemented!()
    }

    /// Gives the canary all requests.
    ///
    /// # Errors
    /// There is none.
    pub fn promote(&self, _handler: &str, _no_wait: bool) -> Result<Receipt, OperatorError> {
        unimplemented!()
    }

    /// Takes the canary back.
    ///
    /// # Errors
    /// There is none.
    pub fn abort(&self, _handler: &str, _no_wait: bool) -> Result<Receipt, OperatorError> {
        unimplemented!()
    }

    /// Reads the configuration again and does what differs, all or nothing.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        unimplemented!()
    }

    /// Stops the host as SIGTERM does.
    pub fn stop(&self) {
        unimplemented!()
    }

    /// What happens to handlers.
    pub fn events(&self) -> &Events {
        unimplemented!()
    }
}
