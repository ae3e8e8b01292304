//! A body far larger than the host may grow, up and down through the echo guest at the same time.

use std::time::Instant;

use anyhow::Result;

use crate::contenders::Contenders;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::there_and_back::there_and_back;
use crate::{Options, Pin};

pub(crate) fn gigabyte(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let bytes = options.body_mib << 20;
    let max_body = format!("{}MiB", options.body_mib);
    let contender = contenders.astra_host("astra-host", "echo", &["--max-body", &max_body, "--deadline", "10m"]);
    // Once is enough for memory; the rate is a by-product.
    let server = Server::start(&contender, Pin::Off)?;
    let idle = server.rss()?;
    let started = Instant::now();
    there_and_back(server.addr, bytes)?;
    let rate = options.body_mib as f64 / started.elapsed().as_secs_f64();
    let grown = server.peak_rss()?.saturating_sub(idle) as f64 / 1024.0;

    let figures =
        [Figure { name: "MiB above idle", rounds: vec![grown] }, Figure { name: "MiB/s", rounds: vec![rate] }];
    report.row("gigabyte", "unpinned", contender.name, &contender.shown(), &figures);
    report.at_most(format!("gigabyte: host MiB above idle for {} MiB", options.body_mib), grown, 64.0);
    Ok(())
}
