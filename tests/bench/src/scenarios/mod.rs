//! One function a scenario. Those under load take turns: in each round every contender is started, warmed up, loaded and stopped.

mod gigabyte;
mod hostile;
mod idle;
mod isolation;
mod kinds;
mod start;
mod swap;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use gigabyte::gigabyte;
pub(crate) use hostile::hostile;
pub(crate) use idle::idle;
pub(crate) use isolation::isolation;
pub(crate) use kinds::{cgi, fetch, languages, upstreams, wasip3};
pub(crate) use start::start;
pub(crate) use swap::swap;

use crate::contenders::Contenders;
use crate::report::{Figure, Report, median};
use crate::server::{Contender, Server};
use crate::{Options, Pin, load};

const NO_WASMTIME: &str =
    "not compared: no `wasmtime` (cargo install wasmtime-cli@48.0.8 --locked, then --wasmtime PATH)";

/// A native handler on three servers.
pub(crate) fn native(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    for pin in options.pins() {
        let turns = Turns { scenario: "native", path: "/", connections: 32, pin };
        let [ours, hyper, seed] = turns.take(&contenders.native(), options, report)?[..] else {
            unreachable!("three contenders, three results")
        };
        let (hyper, seed) = (ours.rate / hyper.rate, ours.rate / seed.rate);
        report.at_least(format!("native, {}: astra-server / hyper on Tokio", pin.name()), hyper, 0.9);
        report.at_least(format!("native, {}: astra-server / astra crate", pin.name()), seed, 1.4);
    }
    Ok(())
}

/// The same over TLS: on connections that are kept, beside the same without, and one request a connection.
pub(crate) fn tls(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let all = contenders.tls();
    for pin in options.pins() {
        let turns = Turns { scenario: "tls", path: "/", connections: 32, pin };
        let [ours, hyper, plain] = turns.take(&all, options, report)?[..] else {
            unreachable!("three contenders, three results")
        };
        let (of_plain, of_hyper) = (ours.rate / plain.rate, ours.rate / hyper.rate);
        report.at_least(format!("tls, {}: astra-server / the same without TLS", pin.name()), of_plain, 0.6);
        report.at_least(format!("tls, {}: astra-server / hyper on Tokio", pin.name()), of_hyper, 0.9);
        let turns = Turns { scenario: "handshake", path: "/close", connections: 32, pin };
        let [ours, hyper] = turns.take(&all[..2], options, report)?[..] else {
            unreachable!("two contenders, two results")
        };
        let name = format!("handshake, {}: astra-server / hyper on Tokio", pin.name());
        report.at_least(name, ours.rate / hyper.rate, 0.9);
    }
    Ok(())
}

/// The hello guest, a fresh instance for each request.
pub(crate) fn hello(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![
        contenders.astra_host("astra-host", "hello", &[]),
        contenders.astra_host("astra-host scan", "hello", &["--reset", "scan"]),
    ];
    all.extend(contenders.wasmtime_default("hello"));
    all.extend(contenders.wasmtime_best("hello"));
    for pin in options.pins() {
        let turns = Turns { scenario: "hello", path: "/", connections: 32, pin };
        let results = turns.take(&all, options, report)?;
        match results[..] {
            [ours, _scan, default, best] => {
                let (default, best) = (ours.rate / default.rate, ours.rate / best.rate);
                report.at_least(format!("hello, {}: astra-host / wasmtime default", pin.name()), default, 3.8);
                report.at_least(format!("hello, {}: astra-host / wasmtime best flags", pin.name()), best, 2.6);
            }
            _ => report.note(NO_WASMTIME),
        }
    }
    Ok(())
}

/// 900 connections whose guests sleep 100 ms: 9,000 requests a second is the ideal.
pub(crate) fn sleep(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "slow", &["--max-workers", "1000"])];
    all.extend(contenders.wasmtime_enlarged("slow"));
    for pin in options.pins() {
        let turns = Turns { scenario: "sleep", path: "/?ms=100", connections: 900, pin };
        let results = turns.take(&all, options, report)?;
        let ours = results[0];
        report.at_most(format!("sleep, {}: errors", pin.name()), ours.errors, 0.0);
        report.at_most(format!("sleep, {}: KiB a waiting guest", pin.name()), ours.kib_per_connection, 130.0);
        match results[..] {
            [ours, theirs] => {
                let rate = ours.rate / theirs.rate;
                report.at_least(format!("sleep, {}: astra-host / wasmtime", pin.name()), rate, 1.12);
                report.at_most(format!("sleep, {}: p99 / wasmtime's", pin.name()), ours.p99_ms / theirs.p99_ms, 1.0);
            }
            _ => report.note(NO_WASMTIME),
        }
    }
    Ok(())
}

/// A scenario under load in which contenders take turns.
struct Turns<'a> {
    scenario: &'static str,
    path: &'a str,
    connections: u32,
    pin: Pin,
}

/// Medians of a contender's rounds; errors are their sum.
#[derive(Clone, Copy)]
struct Medians {
    rate: f64,
    p99_ms: f64,
    errors: f64,
    /// (Most resident memory under load − resident memory before the first request) / connections
    kib_per_connection: f64,
}

impl Turns<'_> {
    fn take(&self, contenders: &[Contender], options: &Options, report: &mut Report) -> Result<Vec<Medians>> {
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
            server.ask(self.path)?;
        }
        load::run(&server, self.path, self.connections, 1, self.pin)?;
        let (load, peak) =
            watching_rss(&server, || load::run(&server, self.path, self.connections, options.seconds, self.pin))?;
        let kib = peak.saturating_sub(before) as f64 / f64::from(self.connections);
        Ok([load.requests_per_second, load.p99_ms, load.errors as f64, kib])
    }
}

/// Runs `work` and reads the server's memory meanwhile; returns the most there was, in KiB.
fn watching_rss<T>(server: &Server, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(server.rss().unwrap_or(0), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let result = work();
        done.store(true, Ordering::SeqCst);
        result
    });
    Ok((result?, most.into_inner()))
}
