//! More than can be served: guests that burn a millisecond of CPU time each, asked for at a fixed rate, first half and then four times of what
//! can be served. The answers that can be given are to be given still, and the rest is to be refused at once.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::idle::raise_descriptors;
use super::turns::{most, watching_rss};
use crate::contenders::Contenders;
use crate::folder::Folder;
use crate::load::{self, get};
use crate::open_loop::OpenLoop;
use crate::report::{Figure, Report, median};
use crate::server::{Contender, Server};
use crate::{Options, Pin};

/// More than a host with default limits lets run and queue.
const CONNECTIONS: usize = 1500;

/// How often the time of one request is taken to find out what a turn takes; the shortest counts.
const SAMPLES: u32 = 30;

/// Turns whose time is taken.
const TURNS: u32 = 2_000_000;

const OVERLOAD: f64 = 4.0;

pub(crate) fn overload(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    raise_descriptors(CONNECTIONS)?;
    let guest = contenders.example_guest("burns_cpu").display().to_string();
    let folder = Folder::new()?;
    let short =
        format!("[[handler]]\nname = \"burn\"\nmodule = {guest:?}\nlimits = {{ in_flight = 16, queue = 48 }}\n");
    let short = folder.file("astra.toml", short)?;
    let all = [
        contenders.astra_host("astra-host", &guest, &[]),
        contenders.astra_host_of("astra-host, 64 at once", &short, &["--no-control", "--access-log", "off"]),
    ];
    let pin = options.pins()[0];
    for contender in &all {
        run(contender, options, pin, report)?;
    }
    Ok(())
}

fn run(contender: &Contender, options: &Options, pin: Pin, report: &mut Report) -> Result<()> {
    let time = Duration::from_secs(options.seconds.into());
    let mut figures = NAMES.map(|name| Figure { name, rounds: Vec::new() });
    let (mut unanswered, mut not_half) = (0, 0);
    for _ in 0..options.rounds {
        let server = Server::start(contender, pin)?;
        let path = format!("/?turns={}", turns_a_millisecond(&server)?);
        let at = |rate| OpenLoop { addr: server.addr, path: &path, connections: CONNECTIONS, rate, time, pin };
        load::run(&server, get(&path, 32), 1, pin)?;
        let capacity = load::run(&server, get(&path, 32), options.seconds, pin)?.requests_per_second;
        let half = at(capacity / 2.0).run()?;
        let (over, memory) = watching_rss(&server, || at(capacity * OVERLOAD).run())?;
        let third = memory.len() / 3;
        let (early, late) = (most(&memory[..third]), most(&memory[memory.len() - third..]));
        // Whoever comes then is served.
        server.ask(&path)?;

        unanswered += over.failed + over.others([200, 503]) as u64;
        not_half += half.failed + half.others([200, 200]) as u64;
        let goodput = over.rate(200, time);
        let values = [
            capacity,
            half.percentile_ms(200, 50),
            half.percentile_ms(200, 99),
            goodput,
            goodput / capacity,
            over.count(503) as f64,
            over.percentile_ms(503, 50),
            over.percentile_ms(503, 99),
            over.percentile_ms(200, 99),
            over.late as f64,
            late / early,
            late / 1024.0,
        ];
        for (figure, value) in figures.iter_mut().zip(values) {
            figure.rounds.push(value);
        }
    }
    let of = |name| figures.iter().find(|figure| figure.name == name).map_or(f64::NAN, |figure| median(&figure.rounds));
    let (goodput, memory) = (of(GOODPUT), of(MEMORY));
    report.row("overload", pin.name(), contender.name, &contender.shown(), &figures);
    let name = contender.name;
    report.at_least(format!("overload, {name}: goodput / capacity"), goodput, 0.9);
    report.at_most(format!("overload, {name}: neither 200 nor 503"), unanswered as f64, 0.0);
    report.at_most(format!("overload, {name}: memory in the last third / in the first"), memory, 1.1);
    report.at_most(format!("overload, {name}: other than 200 at half the capacity"), not_half as f64, 0.0);
    Ok(())
}

const GOODPUT: &str = "goodput / capacity";
const MEMORY: &str = "RSS late / early";

const NAMES: [&str; 12] = [
    "capacity/s",
    "p50 ms at half",
    "p99 ms at half",
    "goodput/s",
    GOODPUT,
    "503s",
    "p50 ms of 503",
    "p99 ms of 503",
    "p99 ms of 200",
    "sent late",
    MEMORY,
    "RSS MiB",
];

/// Turns of the guest's loop that take a millisecond.
pub(super) fn turns_a_millisecond(server: &Server) -> Result<u64> {
    let shortest = |turns: u32| -> Result<Duration> {
        let mut shortest = Duration::MAX;
        for _ in 0..SAMPLES {
            let started = Instant::now();
            server.ask(&format!("/?turns={turns}"))?;
            shortest = shortest.min(started.elapsed());
        }
        Ok(shortest)
    };
    let (empty, full) = (shortest(0)?, shortest(TURNS)?);
    ensure!(full > empty, "computing takes no time");
    Ok((f64::from(TURNS) / (full - empty).as_secs_f64() / 1e3) as u64)
}
