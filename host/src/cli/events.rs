//! `astra-host events`: follows what happens to a host's handlers, until the host ends.

use clap::Args;

use super::{
    control::{Control, say_text},
    say,
};
use crate::{control::client, events::Event};

/// Follow what happens: swaps, drains, guards, rollbacks
#[derive(Args)]
pub(super) struct Events {
    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Events {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        self.control.client()?.follow(|data| match client::parse::<Event>(data) {
            _ if self.json => say(data),
            Ok(event) => say_text(&describe(&event)),
            // What a host of another version tells is told all the same.
            Err(_) => say_text(data),
        })?;
        Ok(())
    }
}

fn describe(event: &Event) -> String {
    let Event { time, kind, handler, text, .. } = event;
    let handler = handler.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    format!("{time}  {kind}  {handler}{text}")
}
