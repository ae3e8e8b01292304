//! Contenders under load, which take turns: in each round every one is started, warmed up, loaded and stopped.

use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::NO_WASMTIME;
use crate::load::{self, Asked};
use crate::report::{Figure, Report, median};
use crate::server::{Contender, Server};
use crate::{Options, Pin};

/// Ours beside its peers, in each setting; without errors.
pub(super) fn compare(
    scenario: &str,
    asked: Asked<'_>,
    ours: &Contender,
    peers: &[Option<Peer>],
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    for pin in options.pins() {
        let turns = Turns { scenario, asked, pin };
        let medians = turns.against(slice::from_ref(ours), peers, options, report)?;
        report.at_most(format!("{scenario}, {}: errors", pin.name()), medians[0].errors, 0.0);
    }
    if peers.iter().any(Option::is_none) {
        report.note(NO_WASMTIME);
    }
    Ok(())
}

/// A scenario under load in which contenders take turns.
pub(super) struct Turns<'a> {
    pub(super) scenario: &'a str,
    pub(super) asked: Asked<'a>,
    pub(super) pin: Pin,
}

/// Someone ours is measured against. Its rate is to be at least so many times theirs, where there is a bound: with a core for each of
/// server and load, and wherever the kernel puts them.
pub(super) struct Peer {
    contender: Contender,
    pinned: Option<f64>,
    unpinned: Option<f64>,
}

impl Peer {
    /// `None` if there is no such contender here.
    pub(super) fn of(contender: Option<Contender>, pinned: Option<f64>, unpinned: Option<f64>) -> Option<Self> {
        Some(Self { contender: contender?, pinned, unpinned })
    }

    fn bound(&self, pin: Pin) -> Option<f64> {
        if pin == Pin::On { self.pinned } else { self.unpinned }
    }
}

/// After the warm-up: a server goes on with what it was asked last, since who has closed a connection may still read.
const REST: Duration = Duration::from_millis(500);

/// Medians of a contender's rounds; errors are their sum.
#[derive(Clone, Copy)]
pub(super) struct Medians {
    pub(super) rate: f64,
    pub(super) p99_ms: f64,
    pub(super) errors: f64,
    /// (Most resident memory under load − resident memory before the first request) / connections
    pub(super) kib_per_connection: f64,
}

impl Turns<'_> {
    /// Ours and those of the peers that are here; the first of ours is held against each of them. All medians, ours first.
    pub(super) fn against(
        &self,
        ours: &[Contender],
        peers: &[Option<Peer>],
        options: &Options,
        report: &mut Report,
    ) -> Result<Vec<Medians>> {
        let peers = peers.iter().flatten();
        let all: Vec<Contender> = ours.iter().chain(peers.clone().map(|peer| &peer.contender)).cloned().collect();
        let medians = self.take(&all, options, report)?;
        for (peer, theirs) in peers.zip(&medians[ours.len()..]) {
            if let Some(bound) = peer.bound(self.pin) {
                let what =
                    format!("{}, {}: {} / {}", self.scenario, self.pin.name(), ours[0].name, peer.contender.name);
                report.at_least(what, medians[0].rate / theirs.rate, bound);
            }
        }
        Ok(medians)
    }

    pub(super) fn take(
        &self,
        contenders: &[Contender],
        options: &Options,
        report: &mut Report,
    ) -> Result<Vec<Medians>> {
        let mut rounds: Vec<[Vec<f64>; 4]> = vec![Default::default(); contenders.len()];
        for _ in 0..options.rounds {
            for (contender, figures) in contenders.iter().zip(&mut rounds) {
                let round = self.round(contender, options).with_context(|| contender.shown())?;
                for (figure, value) in figures.iter_mut().zip(round) {
                    figure.push(value);
                }
            }
        }
        let medians = contenders.iter().zip(rounds).map(|(contender, [rate, p99_ms, errors, kib])| {
            let medians = Medians {
                rate: median(&rate),
                p99_ms: median(&p99_ms),
                errors: errors.iter().sum(),
                kib_per_connection: median(&kib),
            };
            let figures = [
                Figure { name: "requests/s", rounds: rate },
                Figure { name: "p99 ms", rounds: p99_ms },
                Figure { name: "errors", rounds: errors },
                Figure { name: "KiB/connection", rounds: kib },
            ];
            report.row(self.scenario, self.pin.name(), contender.name, &contender.shown(), &figures);
            medians
        });
        Ok(medians.collect())
    }

    fn round(&self, contender: &Contender, options: &Options) -> Result<[f64; 4]> {
        let server = Server::start(contender, self.pin)?;
        let before = server.rss()?;
        if !server.is_tls {
            self.asked.once(&server)?;
        }
        load::run(&server, self.asked, 1, self.pin)?;
        thread::sleep(REST);
        let (load, seen) = watching_rss(&server, || load::run(&server, self.asked, options.seconds, self.pin))?;
        let kib = (most(&seen) - before as f64).max(0.0) / f64::from(self.asked.connections);
        Ok([load.requests_per_second, load.p99_ms, load.errors as f64, kib])
    }
}

/// Runs `work` and looks at the server's resident memory meanwhile, every 50 ms: what there was, in KiB.
pub(super) fn watching_rss<T>(server: &Server, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<u64>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<Vec<u64>> {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.push(server.rss()?);
                thread::sleep(Duration::from_millis(50));
            }
            Ok(seen)
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        let seen = watching.join().map_err(|_| anyhow!("a panic"))?;
        // Where both fail, the work knows better why.
        Ok((result?, seen?))
    })
}

/// The most of what was seen.
pub(super) fn most(seen: &[u64]) -> f64 {
    seen.iter().max().copied().unwrap_or_default() as f64
}
