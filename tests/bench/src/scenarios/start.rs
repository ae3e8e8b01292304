//! Time from the start of the process to its first answer, with the compiled module in the cache, and the memory it rests with then.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::NO_WASMTIME;
use crate::Options;
use crate::contenders::Contenders;
use crate::report::{Figure, Report, median};
use crate::server::{Contender, Server};

/// Starting is short: more rounds than under load cost little.
const STARTS_PER_ROUND: u32 = 4;

/// From the first answer until the server is taken to be at rest.
const REST: Duration = Duration::from_millis(500);

pub(crate) fn start(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "hello", &[])];
    all.extend(contenders.wasmtime_cached("hello"));
    // The first start of each fills its cache and is not counted.
    for contender in &all {
        first_answer(contender)?;
    }
    let mut rounds: Vec<[Vec<f64>; 2]> = vec![Default::default(); all.len()];
    for _ in 0..options.rounds * STARTS_PER_ROUND {
        for (contender, [times, mib]) in all.iter().zip(&mut rounds) {
            let (server, time) = first_answer(contender)?;
            times.push(time.as_secs_f64() * 1000.0);
            std::thread::sleep(REST);
            mib.push(server.rss()? as f64 / 1024.0);
        }
    }
    let medians: Vec<f64> = rounds.iter().map(|[times, _]| median(times)).collect();
    let at_rest = median(&rounds[0][1]);
    for (contender, [times, mib]) in all.iter().zip(rounds) {
        let figures =
            [Figure { name: "ms to first answer", rounds: times }, Figure { name: "MiB at rest", rounds: mib }];
        report.row("start", "unpinned", contender.name, &contender.shown(), &figures);
    }
    report.at_most("start: MiB of astra-host at rest".to_owned(), at_rest, 20.0);
    match medians[..] {
        [ours, theirs] => report.at_most("start: astra-host / wasmtime, both cached".to_owned(), ours / theirs, 0.7),
        _ => report.note(NO_WASMTIME),
    }
    Ok(())
}

fn first_answer(contender: &Contender) -> Result<(Server, Duration)> {
    let addr = free_address()?;
    let started = Instant::now();
    let server = Server::spawn(contender, addr)?;
    while server.ask("/").is_err() {
        if started.elapsed() > Duration::from_secs(60) {
            bail!("no answer: {}", contender.shown());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((server, started.elapsed()))
}

/// An address nobody listens on just now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
