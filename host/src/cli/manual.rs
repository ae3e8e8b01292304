//! `astra-host manual`: the manual pages, one for the program and one for each command, made from what clap knows.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, CommandFactory};

use super::{Arguments, say};

/// Write manual pages
#[derive(Args)]
pub(super) struct Manual {
    /// The directory to write them to, which is made if need be
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Manual {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let dir = &self.dir;
        fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Arguments::command(), dir))
            .with_context(|| format!("cannot write manual pages to `{}`", dir.display()))?;
        say(&format!("man {}", dir.join("astra-host.1").display()));
        Ok(())
    }
}
