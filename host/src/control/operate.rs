//! What the control socket asks of a host. [`Operator`] does it; the tests of this room have a host that only remembers.

use std::path::Path;

use crate::{
    events::Events,
    operator::{Operator, SwapOptions, UpgradeOptions},
    operator_error::OperatorError,
    receipt::Receipt,
    status::{RequestStatus, Status},
};

/// As [`Operator`]'s methods of the same names.
pub(crate) trait Operate: Send + Sync + 'static {
    fn status(&self) -> Status;
    fn requests(&self) -> Vec<RequestStatus>;
    fn kill(&self, id: &str) -> Result<RequestStatus, OperatorError>;
    fn swap(&self, handler: &str, module: &Path, source: &str, how: &SwapOptions) -> Result<Receipt, OperatorError>;
    fn rollback(&self, handler: &str, to: Option<u32>) -> Result<Receipt, OperatorError>;
    fn promote(&self, handler: &str) -> Result<Receipt, OperatorError>;
    fn abort(&self, handler: &str) -> Result<Receipt, OperatorError>;
    fn wait_for_drain(&self, receipt: Receipt) -> Receipt;
    fn reload(&self) -> Result<Vec<Receipt>, OperatorError>;
    fn stop(&self);
    fn upgrade(&self, options: &UpgradeOptions) -> Result<u32, OperatorError>;
    fn hand_over(&self) -> Result<u32, OperatorError>;
    fn is_ready(&self) -> bool;
    fn events(&self) -> &Events;
}

impl Operate for Operator {
    fn status(&self) -> Status {
        self.status()
    }

    fn requests(&self) -> Vec<RequestStatus> {
        self.requests()
    }

    fn kill(&self, id: &str) -> Result<RequestStatus, OperatorError> {
        self.kill(id)
    }

    fn swap(&self, handler: &str, module: &Path, source: &str, how: &SwapOptions) -> Result<Receipt, OperatorError> {
        self.swap(handler, module, source, how)
    }

    fn rollback(&self, handler: &str, to: Option<u32>) -> Result<Receipt, OperatorError> {
        self.rollback(handler, to)
    }

    fn promote(&self, handler: &str) -> Result<Receipt, OperatorError> {
        self.promote(handler)
    }

    fn abort(&self, handler: &str) -> Result<Receipt, OperatorError> {
        self.abort(handler)
    }

    fn wait_for_drain(&self, receipt: Receipt) -> Receipt {
        self.wait_for_drain(receipt)
    }

    fn reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        self.reload()
    }

    fn stop(&self) {
        self.stop();
    }

    fn upgrade(&self, options: &UpgradeOptions) -> Result<u32, OperatorError> {
        self.upgrade(options)
    }

    fn hand_over(&self) -> Result<u32, OperatorError> {
        self.hand_over()
    }

    fn is_ready(&self) -> bool {
        self.is_ready()
    }

    fn events(&self) -> &Events {
        self.events()
    }
}
