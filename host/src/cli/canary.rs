//! `astra-host promote` and `astra-host abort`: what becomes of a canary, which `astra-host swap --canary` has started.

use clap::Args;

use super::control::Operation;

/// Give the canary of a handler all its requests
#[derive(Args)]
pub(super) struct Promote {
    #[command(flatten)]
    operation: Operation,
}

/// Take the canary of a handler back
#[derive(Args)]
pub(super) struct Abort {
    #[command(flatten)]
    operation: Operation,
}

impl Promote {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        self.operation.run("promote", &[])
    }
}

impl Abort {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        self.operation.run("abort", &[])
    }
}
