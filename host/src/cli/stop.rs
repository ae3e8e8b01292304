//! `astra-host stop`: stops a running host as SIGTERM does, and waits until it is gone.

use std::fs::File;

use anyhow::Context;
use clap::Args;
use http::Method;

use super::{control::Control, say, spinner::Spinner};
use crate::control::{client::Question, socket::lock_path};

/// Stop a running host: it finishes what runs, for as long as it is configured to
#[derive(Args)]
pub(super) struct Stop {
    /// Return at once, rather than when the host is gone
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    control: Control,
}

impl Stop {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let client = self.control.client()?;
        // Opened before the host removes it: of a file that is gone, too, we can wait for the lock.
        let lock = File::open(lock_path(client.path()));
        client.ask(Question::new(Method::POST, &["v1", "stop"]))?;
        if self.no_wait {
            say("stopping");
            return Ok(());
        }
        let gone = {
            let _spinner = Spinner::start("stopping".to_owned());
            lock.and_then(|lock| lock.lock_shared())
        };
        let path = client.path().display();
        gone.with_context(|| {
            format!("the host is stopping; without the lock of `{path}` there is no waiting for its end")
        })?;
        say("stopped");
        Ok(())
    }
}
