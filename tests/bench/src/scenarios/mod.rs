//! One function a scenario. Those under load take turns: in each round every contender is started, warmed up, loaded and stopped.

mod curves;
mod echo;
mod gigabyte;
mod half;
mod hostile;
mod idle;
mod isolation;
mod kinds;
mod observed;
mod overload;
mod slow;
mod soak;
mod start;
mod swap;
mod turns;

use anyhow::Result;

pub(crate) use curves::curves;
pub(crate) use echo::echo;
pub(crate) use gigabyte::gigabyte;
pub(crate) use half::half;
pub(crate) use hostile::hostile;
pub(crate) use idle::idle;
pub(crate) use isolation::isolation;
pub(crate) use kinds::{cgi, fetch, languages, stack, upstreams, wasip3};
pub(crate) use observed::observed;
pub(crate) use overload::overload;
pub(crate) use slow::slow;
pub(crate) use soak::soak;
pub(crate) use start::start;
pub(crate) use swap::swap;

use crate::contenders::Contenders;
use crate::load::get;
use crate::report::Report;
use crate::{Options, Pin};
use turns::{Peer, Turns};

const NO_WASMTIME: &str =
    "not compared: no `wasmtime` (cargo install wasmtime-cli@48.0.8 --locked, then --wasmtime PATH)";

/// A native handler on three servers.
pub(crate) fn native(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    for pin in options.pins() {
        let turns = Turns { scenario: "native", asked: get("/", 32), pin };
        let [ours, hyper, seed] = turns.take(&contenders.native(), options, report)?[..] else {
            unreachable!("three contenders, three results")
        };
        let least = if pin == Pin::On { 1.0 } else { 0.9 };
        report.at_least(
            format!("native, {}: astra-server / hyper on Tokio", pin.name()),
            ours.rate / hyper.rate,
            least,
        );
        if pin == Pin::On {
            report.at_most("native, pinned: p99 / hyper's".to_owned(), ours.p99_ms / hyper.p99_ms, 1.0);
        }
        report.at_least(format!("native, {}: astra-server / astra crate", pin.name()), ours.rate / seed.rate, 1.4);
    }
    Ok(())
}

/// The same over TLS: on connections that are kept, beside the same without, and one request a connection.
pub(crate) fn tls(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let all = contenders.tls();
    for pin in options.pins() {
        let turns = Turns { scenario: "tls", asked: get("/", 32), pin };
        let [ours, hyper, plain] = turns.take(&all, options, report)?[..] else {
            unreachable!("three contenders, three results")
        };
        let (of_plain, of_hyper) = (ours.rate / plain.rate, ours.rate / hyper.rate);
        report.at_least(format!("tls, {}: astra-server / the same without TLS", pin.name()), of_plain, 0.6);
        report.at_least(format!("tls, {}: astra-server / hyper on Tokio", pin.name()), of_hyper, 0.9);
        let turns = Turns { scenario: "handshake", asked: get("/close", 32), pin };
        let [ours, hyper] = turns.take(&all[..2], options, report)?[..] else {
            unreachable!("two contenders, two results")
        };
        let name = format!("handshake, {}: astra-server / hyper on Tokio", pin.name());
        report.at_least(name, ours.rate / hyper.rate, 0.9);
    }
    Ok(())
}

/// The hello guest, a fresh instance for each request, beside those that make one too, those that do not, and what needs none.
pub(crate) fn hello(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let ours = [
        contenders.astra_host("astra-host", "hello", &[]),
        contenders.astra_host("astra-host copy", "hello", &["--reset", "copy"]),
    ];
    let [native, ..] = contenders.native();
    let peers = [
        Peer::of(contenders.wasmtime_default("hello"), Some(7.0), Some(3.8)),
        Peer::of(contenders.wasmtime_best("hello"), Some(5.0), Some(2.6)),
        Peer::of(contenders.wasmtime_reused("hello"), Some(1.25), None),
        Peer::of(contenders.workerd(), Some(3.8), None),
        Peer::of(contenders.node(), Some(1.0), None),
        Peer::of(Some(native), Some(0.45), None),
    ];
    for pin in options.pins() {
        Turns { scenario: "hello", asked: get("/", 32), pin }.against(&ours, &peers, options, report)?;
    }
    let tools = [
        (&contenders.wasmtime, NO_WASMTIME),
        (
            &contenders.workerd,
            "not compared: no `workerd` (npm install workerd, then --workerd node_modules/workerd/bin/workerd)",
        ),
        (&contenders.node, "not compared: no `node` in PATH (Debian and Ubuntu: `apt install nodejs`)"),
    ];
    for (_, how_to_get_it) in tools.iter().filter(|(tool, _)| tool.is_none()) {
        report.note(how_to_get_it);
    }
    Ok(())
}

/// 900 connections whose guests sleep 100 ms: 9,000 requests a second is the ideal.
pub(crate) fn sleep(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "slow", &["--max-workers", "1000"])];
    all.extend(contenders.wasmtime_enlarged("slow"));
    for pin in options.pins() {
        let turns = Turns { scenario: "sleep", asked: get("/?ms=100", 900), pin };
        let results = turns.take(&all, options, report)?;
        let ours = results[0];
        report.at_most(format!("sleep, {}: errors", pin.name()), ours.errors, 0.0);
        report.at_most(format!("sleep, {}: KiB a waiting guest", pin.name()), ours.kib_per_connection, 100.0);
        match results[..] {
            [ours, theirs] => {
                let rate = ours.rate / theirs.rate;
                report.at_least(format!("sleep, {}: astra-host / wasmtime", pin.name()), rate, 1.2);
                report.at_most(format!("sleep, {}: p99 / wasmtime's", pin.name()), ours.p99_ms / theirs.p99_ms, 0.75);
            }
            _ => report.note(NO_WASMTIME),
        }
    }
    Ok(())
}
