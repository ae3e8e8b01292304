//! Bodies that are posted to the echo guest and come back, on eight connections.

use anyhow::Result;

use super::turns::{Peer, compare};
use crate::Options;
use crate::contenders::Contenders;
use crate::load;
use crate::report::Report;

pub(crate) fn echo(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let ours = contenders.astra_host("astra-host", "echo", &[]);
    let theirs = [Peer::of(contenders.wasmtime_best("echo"), Some(2.5), None)];
    for (scenario, body) in [("echo 64 KiB", 64 << 10), ("echo 1 MiB", 1 << 20)] {
        compare(scenario, load::echo(body, 8), &ours, &theirs, options, report)?;
    }
    Ok(())
}
