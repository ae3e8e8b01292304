//! `astra-host kill`: cuts one request that runs or waits, as its deadline would.

use anyhow::bail;
use clap::Args;
use http::Method;

use super::{
    control::{Control, say_text},
    ps,
};
use crate::{
    control::client::{self, Question},
    status::RequestStatus,
};

/// Cut a request in flight
#[derive(Args)]
pub(super) struct Kill {
    /// Its id, as `astra-host ps`, the log or `x-request-id` has it
    id: String,
    #[command(flatten)]
    control: Control,
}

impl Kill {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let client = self.control.client()?;
        let running: Vec<RequestStatus> = client::parse(&client.ask(ps::question())?)?;
        let meant = running.iter().map(|request| &request.id).find(|id| **id == self.id || ps::short(id) == self.id);
        let Some(id) = meant else {
            bail!("no request `{}` is running; `astra-host ps` lists them", self.id);
        };
        let answer = client.ask(Question::new(Method::DELETE, &["v1", "requests", id]))?;
        let RequestStatus { handler, revision, method, path, .. } = client::parse(&answer)?;
        say_text(&format!("{id}  {handler} r{revision}  {method} {path}  cut"));
        Ok(())
    }
}
