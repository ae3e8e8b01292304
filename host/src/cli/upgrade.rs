//! `astra-host upgrade`: has a running host replaced by a new process, of a newer program or a changed configuration, without a client
//! noticing.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::{control::Control, say, spinner::Spinner};
use crate::control::client::{self, Question};

/// Replace a running host by a new process, without dropping a request: it takes the sockets over once its modules are loaded
#[derive(Args)]
pub(super) struct Upgrade {
    /// The new program [default: the file that the host was started from, as it is now]
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
    /// How long it may take to get ready, compiling included; then it is killed [default: 5m]
    #[arg(long, value_name = "DURATION")]
    within: Option<String>,
    /// Also while a canary or a guard is there: neither is afterwards, and what is live stays
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl Upgrade {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let exe = self.exe.as_ref().map(std::path::absolute).transpose()?.map(|path| path.display().to_string());
        let force = self.force.then_some("true");
        let query = [("exe", exe.as_deref()), ("within", self.within.as_deref()), ("force", force)];
        let question = Question::new(Method::POST, &["v1", "upgrade"]).query(&query);
        let answer = {
            let _spinner = Spinner::start("upgrading".to_owned());
            self.control.client()?.ask(question)?
        };
        if self.json {
            say(&answer);
        } else {
            say(&format!("process {} serves now", client::parse::<Value>(&answer)?["pid"]));
        }
        Ok(())
    }
}
