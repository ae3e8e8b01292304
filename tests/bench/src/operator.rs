//! What an operator does to a running host: each time a command line of its own, which speaks to the control socket.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub(crate) struct Operator<'a> {
    pub(crate) astra_host: &'a Path,
    pub(crate) control: &'a Path,
}

impl Operator<'_> {
    /// The receipt, with the time that the whole command took as `whole_ms`.
    pub(crate) fn swap(&self, handler: &str, module: &Path) -> Result<Value> {
        let started = Instant::now();
        let mut receipt = self.ask(Command::new(self.astra_host).args(["swap", handler]).arg(module).arg("--json"))?;
        receipt["whole_ms"] = (started.elapsed().as_secs_f64() * 1e3).into();
        Ok(receipt)
    }

    /// The requests in flight.
    pub(crate) fn requests(&self) -> Result<Vec<Value>> {
        let answer = self.ask(Command::new(self.astra_host).args(["ps", "--json"]))?;
        Ok(answer.as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn status(&self) -> Result<Value> {
        self.ask(Command::new(self.astra_host).args(["status", "--json"]))
    }

    /// Where the host speaks TLS.
    pub(crate) fn https(&self) -> Result<SocketAddr> {
        let status = self.status()?;
        let places = status["listen"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let addr = places.filter_map(|place| place.strip_prefix("https://")).next();
        Ok(addr.context("it speaks no TLS")?.trim_end_matches('/').parse()?)
    }

    pub(crate) fn kill(&self, id: &str) -> Result<()> {
        self.tell(Command::new(self.astra_host).args(["kill", id])).map(drop)
    }

    fn ask(&self, command: &mut Command) -> Result<Value> {
        Ok(serde_json::from_slice(&self.tell(command)?)?)
    }

    fn tell(&self, command: &mut Command) -> Result<Vec<u8>> {
        let output = command.arg("--control").arg(self.control).output().context("cannot run astra-host")?;
        if !output.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }
}
