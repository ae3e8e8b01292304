//! Rate and 99th percentile over what is varied: connections, the size of a body, and a guest's own work. Drawn beside the JSON file.

use anyhow::Result;

use super::idle::raise_descriptors;
use super::overload::turns_a_millisecond;
use super::turns::Turns;
use crate::Options;
use crate::chart::{Chart, Line, Point};
use crate::contenders::Contenders;
use crate::folder::Folder;
use crate::load::{self, Asked, get};
use crate::report::Report;
use crate::server::{Contender, Server};

const MOST_CONNECTIONS: u32 = 10_000;

const CONNECTIONS: [(u32, &str); 9] = [
    (1, "1"),
    (4, "4"),
    (16, "16"),
    (32, "32"),
    (64, "64"),
    (256, "256"),
    (1000, "1,000"),
    (4000, "4,000"),
    (MOST_CONNECTIONS, "10,000"),
];

const BODIES: [(u64, &str); 7] = [
    (0, "0"),
    (1 << 10, "1 KiB"),
    (16 << 10, "16 KiB"),
    (64 << 10, "64 KiB"),
    (1 << 20, "1 MiB"),
    (4 << 20, "4 MiB"),
    (16 << 20, "16 MiB"),
];

/// Microseconds.
const WORK: [(u32, &str); 5] = [(1, "1 µs"), (10, "10 µs"), (100, "100 µs"), (1000, "1 ms"), (10_000, "10 ms")];

struct Curve<'a> {
    name: &'static str,
    title: &'static str,
    varied: &'static str,
    stops: Vec<Stop<'a>>,
}

struct Stop<'a> {
    value: f64,
    label: &'static str,
    asked: Asked<'a>,
}

pub(crate) fn curves(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    connections(options, contenders, report)?;
    bodies(options, contenders, report)?;
    work(options, contenders, report)
}

fn connections(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    raise_descriptors(MOST_CONNECTIONS as usize)?;
    let folder = Folder::new()?;
    // All may wait, as the others let them: with default limits some would be answered 503.
    let config = format!(
        "[[handler]]\nname = \"hello\"\nmodule = {:?}\nlimits = {{ queue = {MOST_CONNECTIONS} }}\n",
        contenders.guest("hello")
    );
    let config = folder.file("astra.toml", config)?;
    let [native, ..] = contenders.native();
    let mut all = vec![contenders.astra_host_of("astra-host", &config, &["--no-control", "--access-log", "off"])];
    all.extend(contenders.wasmtime_best("hello"));
    all.push(native);
    let stops = CONNECTIONS.map(|(count, label)| Stop { value: count.into(), label, asked: get("/", count) });
    let (name, title, varied) = ("connections", "Hello World! over the number of connections", "connections");
    Curve { name, title, varied, stops: stops.into() }.draw(&all, options, report)
}

fn bodies(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "echo", &["--max-body", "16MiB"])];
    all.extend(contenders.wasmtime_best("echo"));
    let stops = BODIES.map(|(size, label)| Stop { value: size as f64, label, asked: load::echo(size, 8) });
    let (title, varied) = ("A body there and back, over its size", "body, 8 connections");
    Curve { name: "body", title, varied, stops: stops.into() }.draw(&all, options, report)
}

fn work(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.example_guest("burns_cpu").display().to_string();
    let mut all = vec![contenders.astra_host("astra-host", &guest, &[])];
    all.extend(contenders.wasmtime_best(&guest));
    // The same code runs in both.
    let millisecond = turns_a_millisecond(&Server::start(&all[0], options.pins()[0])?)?;
    let paths = WORK.map(|(us, _)| format!("/?turns={}", millisecond * u64::from(us) / 1000));
    let stops = WORK.iter().zip(&paths);
    let stops = stops.map(|((us, label), path)| Stop { value: (*us).into(), label, asked: get(path, 32) }).collect();
    let (title, varied) = ("A guest that computes, over its CPU time", "CPU time of the guest itself, 32 connections");
    Curve { name: "work", title, varied, stops }.draw(&all, options, report)
}

impl Curve<'_> {
    fn draw(&self, all: &[Contender], options: &Options, report: &mut Report) -> Result<()> {
        let mut lines: Vec<Line> =
            all.iter().map(|contender| Line { name: contender.name, points: Vec::new() }).collect();
        let pin = options.pins()[0];
        for Stop { label, asked, .. } in &self.stops {
            let scenario = format!("{} {label}", self.name);
            let medians = Turns { scenario: &scenario, asked: *asked, pin }.take(all, options, report)?;
            for (line, medians) in lines.iter_mut().zip(medians) {
                let point = Point { rate: medians.rate, p99_ms: medians.p99_ms, has_errors: medians.errors > 0.0 };
                line.points.push(point);
            }
        }
        let stops = self.stops.iter().map(|stop| (stop.value, stop.label)).collect();
        let chart = Chart { title: self.title, varied: self.varied, stops, lines };
        report.picture(&options.json.with_file_name(self.name).with_extension("svg"), self.title, &chart.svg())
    }
}
