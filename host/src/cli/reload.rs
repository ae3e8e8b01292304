//! `astra-host reload`: has a running host read its configuration again, as SIGHUP does.

use clap::Args;
use http::Method;

use super::{
    control::{Control, say_text},
    say,
};
use crate::{
    control::client::{self, Question},
    receipt::Receipt,
};

/// Read the configuration again and do what differs, all or nothing
#[derive(Args)]
pub(super) struct Reload {
    /// Print the receipts as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Reload {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let answer = self.control.client()?.ask(Question::new(Method::POST, &["v1", "reload"]))?;
        if self.json {
            say(&answer);
            return Ok(());
        }
        let receipts: Vec<Receipt> = client::parse(&answer)?;
        if receipts.is_empty() {
            say("nothing has changed");
        }
        receipts.iter().for_each(|receipt| say_text(&receipt.to_string()));
        Ok(())
    }
}
