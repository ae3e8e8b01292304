//! `astra-host dev`: `run --watch` for the one who is writing the guest: a package that does not build yet is waited for.

use std::{path::PathBuf, thread, time::Instant};

use anyhow::{Context, bail};
use clap::Args;
use signal_hook::iterator::Signals;

use super::{
    complain, explain,
    run::{Flags, Run},
    signals::{Caught, stops},
};
use crate::{
    host_error::HostError,
    watch::{Change, Watched},
};

/// Build a guest package, serve it, and build and swap it in again whenever it changes
#[derive(Args)]
pub(super) struct Dev {
    /// The directory of a Cargo package, or a .wasm file that something else builds
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    #[command(flatten)]
    flags: Flags,
}

impl Dev {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self { path, mut flags } = self;
        flags.handler.watch = true;
        // What is being written is what should be served, also after a restart.
        flags.places.no_state = flags.places.state.is_none();
        if !path.exists() {
            bail!("`{}` is not there: `astra-host new NAME` makes a package", path.display());
        }
        let run = Run { path, take_over: None, flags };

        let config = run.config()?;
        let log = run.start_log()?;
        let mut caught = Caught::new().context("cannot catch signals")?;
        let mut watched = Watched::new(&run.path);
        loop {
            let error = match run.start(config.clone(), &log, &caught, |builder| builder) {
                Ok(host) => return run.serve(host, &mut caught.signals, None),
                Err(_) if caught.stop() => return Ok(()),
                Err(error) => error,
            };
            if !matches!(error.downcast_ref(), Some(HostError::Build(_) | HostError::Load(_))) {
                return Err(error);
            }
            complain(&format!("{}\n  waiting for a change\n", explain(&error)));
            if !change(&mut watched, &mut caught.signals) {
                return Ok(());
            }
        }
    }
}

/// Waits for a change; false if told to stop before there is one.
fn change(watched: &mut Watched, signals: &mut Signals) -> bool {
    while watched.poll(Instant::now()) != Change::Stable {
        if signals.pending().any(stops) {
            return false;
        }
        thread::park_timeout(watched.interval());
    }
    watched.taken();
    true
}
