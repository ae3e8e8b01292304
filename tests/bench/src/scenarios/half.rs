//! Latency while there is time to spare: hello, asked for at a fixed rate, half of what the same server can serve on as many connections.

use std::time::Duration;

use anyhow::Result;

use super::NO_WASMTIME;
use crate::contenders::Contenders;
use crate::load::{self, get};
use crate::open_loop::OpenLoop;
use crate::report::{Figure, Report, median};
use crate::server::{Contender, Server};
use crate::{Options, Pin};

const CONNECTIONS: [u32; 2] = [32, 256];

const NAMES: [&str; 6] = ["capacity/s", "asked/s", "p50 ms", P99, "errors", "sent late"];
const P99: &str = "p99 ms";

pub(crate) fn half(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "hello", &[])];
    all.extend(contenders.wasmtime_best("hello"));
    let pin = options.pins()[0];
    for connections in CONNECTIONS {
        let mut rounds = vec![NAMES.map(|name| Figure { name, rounds: Vec::new() }); all.len()];
        for _ in 0..options.rounds {
            for (contender, figures) in all.iter().zip(&mut rounds) {
                for (figure, value) in figures.iter_mut().zip(round(contender, connections, options, pin)?) {
                    figure.rounds.push(value);
                }
            }
        }
        let scenario = format!("half {connections}");
        let mut p99s = Vec::new();
        for (contender, figures) in all.iter().zip(rounds) {
            report.row(&scenario, pin.name(), contender.name, &contender.shown(), &figures);
            p99s.extend(figures.iter().filter(|figure| figure.name == P99).map(|figure| median(&figure.rounds)));
        }
        match p99s[..] {
            [ours, theirs] => {
                let what = format!("{scenario}, {}: p99 of astra-host / of wasmtime best flags", pin.name());
                report.at_most(what, ours / theirs, 0.25);
            }
            _ => report.note(NO_WASMTIME),
        }
    }
    Ok(())
}

fn round(contender: &Contender, connections: u32, options: &Options, pin: Pin) -> Result<[f64; NAMES.len()]> {
    let server = Server::start(contender, pin)?;
    load::run(&server, get("/", connections), 1, pin)?;
    let capacity = load::run(&server, get("/", connections), options.seconds, pin)?.requests_per_second;
    let (rate, time) = (capacity / 2.0, Duration::from_secs(options.seconds.into()));
    let half = OpenLoop { addr: server.addr, path: "/", connections: connections as usize, rate, time, pin }.run()?;
    let errors = half.failed + half.others([200, 200]) as u64;
    Ok([capacity, rate, half.percentile_ms(200, 50), half.percentile_ms(200, 99), errors as f64, half.late as f64])
}
