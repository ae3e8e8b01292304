//! `astra-host completions`: what a shell needs to complete our commands and flags, as clap knows them.

use std::io::{self, Write};

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::Arguments;

/// Print completions for a shell
#[derive(Args)]
pub(super) struct Completions {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        // Not straight to the standard output: clap panics when nobody reads it to the end.
        let mut script = Vec::new();
        generate(self.shell, &mut Arguments::command(), "astra-host", &mut script);
        let _ = io::stdout().write_all(&script);
        Ok(())
    }
}
