//! `astra-host promote` and `astra-host abort`: what becomes of a canary, which `astra-host swap --canary` has started.

use clap::Args;
use http::Method;

use super::control::{Control, say_receipt};
use crate::control::client::Question;

/// Give the canary of a handler all its requests
#[derive(Args)]
pub(super) struct Promote {
    #[command(flatten)]
    canary: Canary,
}

/// Take the canary of a handler back
#[derive(Args)]
pub(super) struct Abort {
    #[command(flatten)]
    canary: Canary,
}

#[derive(Args)]
struct Canary {
    /// The handler
    handler: String,
    /// Return at once, rather than when the revision that is replaced has drained
    #[arg(long)]
    no_wait: bool,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Promote {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        self.canary.decide("promote")
    }
}

impl Abort {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        self.canary.decide("abort")
    }
}

impl Canary {
    fn decide(&self, verb: &str) -> anyhow::Result<()> {
        let question = Question::new(Method::POST, &["v1", "handlers", &self.handler, verb])
            .query(&[("no_wait", self.no_wait.then_some("true"))]);
        say_receipt(&self.control.client()?.ask(question)?, self.json)
    }
}
