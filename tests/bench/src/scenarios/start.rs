//! Time from the start of the process to its first answer, with the compiled module in the cache.

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

pub(crate) fn start(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "hello", &[])];
    all.extend(contenders.wasmtime_cached("hello"));
    // The first start of each fills its cache and is not counted.
    for contender in &all {
        first_answer(contender)?;
    }
    let mut rounds = vec![Vec::new(); all.len()];
    for _ in 0..options.rounds * STARTS_PER_ROUND {
        for (contender, times) in all.iter().zip(&mut rounds) {
            times.push(first_answer(contender)?.as_secs_f64() * 1000.0);
        }
    }
    let medians: Vec<f64> = rounds.iter().map(|times| median(times)).collect();
    for (contender, times) in all.iter().zip(rounds) {
        let figures = [Figure { name: "ms to first answer", rounds: times }];
        report.row("start", "unpinned", contender.name, &contender.shown(), &figures);
    }
    match medians[..] {
        [ours, theirs] => report.at_most("start: astra-host / wasmtime, both cached".to_owned(), ours / theirs, 1.5),
        _ => report.note(NO_WASMTIME),
    }
    Ok(())
}

fn first_answer(contender: &Contender) -> Result<Duration> {
    let addr = free_address()?;
    let started = Instant::now();
    let server = Server::spawn(contender, addr)?;
    while server.ask("/").is_err() {
        if started.elapsed() > Duration::from_secs(60) {
            bail!("no answer: {}", contender.shown());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(started.elapsed())
}

/// An address nobody listens on just now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
