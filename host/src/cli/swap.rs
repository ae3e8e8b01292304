//! `astra-host swap`: publishes a module as a handler's new revision, while the host serves.
//!
//! Ended while it waits, it leaves the swap as it is: what has been uploaded whole is swapped, what has not is forgotten.

use std::{
    fs::{self, File},
    path::{self, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;

use super::{control::Operation, spinner::Spinner};
use crate::{config, package};

/// Replace a handler's module while the host serves; ends when the revision before has drained
#[derive(Args)]
pub(super) struct Swap {
    #[command(flatten)]
    operation: Operation,
    /// A .wasm file, or the directory of a Cargo package, which is built first
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
    /// Give the new revision this share of the requests only, until `promote` or `abort`
    #[arg(long, value_name = "SHARE")]
    canary: Option<String>,
    /// Refuse a module that imports what the one before did not
    #[arg(long)]
    no_new_imports: bool,
    /// Serve the configured module again after a restart
    #[arg(long)]
    until_restart: bool,
}

impl Swap {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let canary = self.canary.as_deref().map(|text| config::share("--canary", text)).transpose()?;
        let client = self.operation.control.client()?;
        let path = package::module(&self.path)?;
        let found = fs::metadata(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        // Opening a pipe would wait for its other end.
        if !found.is_file() || found.len() == 0 {
            bail!("`{}` is no module: give a .wasm file, or the directory of a Cargo package", path.display());
        }
        let module = File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))?;

        let yes = |flag: bool| flag.then_some("true");
        let canary = canary.map(|share| share.to_string());
        let source = path::absolute(&path).unwrap_or(path);
        let query = [
            ("canary", canary.as_deref()),
            ("no_new_imports", yes(self.no_new_imports)),
            ("until_restart", yes(self.until_restart)),
            ("source", Some(&*source.to_string_lossy())),
        ];
        let question = self.operation.question("swap", &query).body(module, found.len());
        let answer = {
            let _spinner = Spinner::start(format!("swapping {}", self.operation.handler));
            client.ask(question)?
        };
        self.operation.say(&answer)
    }
}
