//! Swaps under load: what fails, what is cut, whether an answer is of two revisions, what it costs those who ask meanwhile.
//!
//! The guest says a text that is replaced in its file, so that each answer tells which module made it, and each of its parts does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clients::{Answers, Clients};
use crate::contenders::Contenders;
use crate::endpoint::Endpoint;
use crate::folder::Folder;
use crate::operator::Operator;
use crate::report::{Figure, Report, median};
use crate::server::Server;
use crate::{Options, Pin};

/// Modules that take turns; more than are kept, so that each can be loaded anew.
const VERSIONS: usize = 8;

/// So many of them are kept beside the one that is live.
const KEPT: usize = 3;

/// What the guest says, before it is replaced.
const TEXT: &[u8] = b"version-0000";

/// Functions in the module that takes long to compile.
const FUNCTIONS: u32 = 20_000;

pub(crate) fn swap(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    for pin in options.pins() {
        run(options, contenders, report, pin)?;
    }
    Ok(())
}

fn run(options: &Options, contenders: &Contenders, report: &mut Report, pin: Pin) -> Result<()> {
    let folder = Folder::new()?;
    let guest = std::fs::read(contenders.example_guest("says_its_version"))?;
    let files = (1..=VERSIONS as u32)
        .map(|n| folder.file(&format!("version-{n}.wasm"), version(&guest, n)?))
        .collect::<Result<Vec<_>>>()?;
    let large = folder.file("large.wasm", large(&guest))?;
    let control = folder.path().join("control");
    let flags = ["--control", &control.display().to_string(), "--no-state"].map(str::to_owned);
    let mut contender = contenders.astra_host("astra-host", "hello", &[]);
    contender.arguments[1] = files[0].display().to_string();
    contender.arguments.extend(flags);
    let server = Server::start(&contender, pin)?;
    let operator = Operator { astra_host: &contender.program, control: &control };
    let swap = |file: &PathBuf| operator.swap("version-1", file);

    // Everything is in the cache, every slot has been used.
    for file in files.iter().chain([&files[0]]) {
        swap(file)?;
    }
    let seconds = Duration::from_secs(options.swap_seconds.into());
    let endpoints = [Endpoint::plain(server.addr)];
    let clients = Clients { endpoints: &endpoints, pin, pause: Duration::ZERO };
    clients.ask(Duration::from_secs(2), || Ok(()))?;
    let rss_before = server.rss()?;
    let before = clients.ask(seconds / 4, || Ok(()))?.0;

    // Back and forth between modules that are loaded, and then from the cache.
    let turns = |swaps: u32, time: Duration, files: &[PathBuf]| {
        clients.ask(time, || {
            let started = Instant::now();
            let mut receipts = Vec::new();
            for n in 0..swaps {
                receipts.push(swap(&files[(n as usize + 1) % files.len()])?);
                std::thread::sleep((time / swaps * (n + 1)).saturating_sub(started.elapsed()));
            }
            Ok(receipts)
        })
    };
    let (during, receipts) = turns(options.swaps, seconds, &files[..KEPT])?;
    let (cached, from_cache) = turns(options.swaps / 4, seconds / 4, &files)?;
    let after = clients.ask(seconds / 4, || Ok(()))?.0;
    let rss_after = server.rss()?;

    let (compiling, compiled) = clients.ask(seconds / 4, || swap(&large))?;

    let calm = median(&[before.p99_ms(), after.p99_ms()]);
    let all = [&during, &cached, &compiling];
    let (failed, mixed) = all.iter().fold((0, 0), |(failed, mixed), one| (failed + one.failed, mixed + one.mixed));
    let cut: u64 = receipts.iter().chain(&from_cache).filter_map(|receipt| receipt["drained"]["cut"].as_u64()).sum();
    let publish = first_answers(&during, &receipts);
    let whole = |receipts: &[Value]| receipts.iter().filter_map(|receipt| receipt["whole_ms"].as_f64()).collect();
    let figures = [
        figure("swaps", receipts.len() as f64),
        figure("requests", during.latencies_us.len() as f64),
        figure("failed", failed as f64),
        figure("mixed", mixed as f64),
        figure("cut", cut as f64),
        figure("req/s", during.rate()),
        figure("req/s without", before.rate()),
        figure("p99 ms", during.p99_ms()),
        figure("p99 ms without", calm),
        figure("RSS MiB before", rss_before as f64 / 1024.0),
        figure("RSS MiB after", rss_after as f64 / 1024.0),
        Figure { name: "first answer after live ms", rounds: publish },
        Figure { name: "whole swap, kept ms", rounds: whole(&receipts) },
        figure("swaps from cache", from_cache.len() as f64),
        Figure { name: "whole swap, from cache ms", rounds: whole(&from_cache) },
        figure("p99 ms from cache", cached.p99_ms()),
        figure("p99 ms while compiling", compiling.p99_ms()),
        figure("large module MiB", std::fs::metadata(&large)?.len() as f64 / f64::from(1 << 20)),
        figure("large module live after ms", compiled["whole_ms"].as_f64().unwrap_or(f64::NAN)),
    ];
    report.row("swap", pin.name(), contender.name, &contender.shown(), &figures);
    let name = pin.name();
    report.at_most(format!("swap, {name}: requests failed, reset or cut"), (failed + cut) as f64, 0.0);
    report.at_most(format!("swap, {name}: answers of two revisions"), mixed as f64, 0.0);
    report.at_most(format!("swap, {name}: p99 during swaps / without"), during.p99_ms() / calm, 1.5);
    report.at_most(format!("swap, {name}: RSS after / before"), rss_after as f64 / rss_before as f64, 1.1);
    report.at_most(
        format!("swap, {name}: p99 while a large module compiles / without"),
        compiling.p99_ms() / calm,
        2.0,
    );
    Ok(())
}

fn figure(name: &'static str, value: f64) -> Figure {
    Figure { name, rounds: vec![value] }
}

/// Milliseconds from when each receipt says its revision was live to the end of the first answer of it.
fn first_answers(answers: &Answers, receipts: &[Value]) -> Vec<f64> {
    let mut delays = Vec::new();
    for receipt in receipts {
        let live = receipt["live"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok());
        let live = live.and_then(|live| live.duration_since(std::time::UNIX_EPOCH).ok());
        // The text changes with each swap, so the first sight of it after the receipt's time is the first answer of it.
        let first =
            live.and_then(|live| answers.changes.iter().find(|change| **change >= live).map(|change| *change - live));
        delays.extend(first.map(|delay| delay.as_secs_f64() * 1e3));
    }
    delays
}

/// The guest with another text.
pub(super) fn version(guest: &[u8], n: u32) -> Result<Vec<u8>> {
    ensure!(guest.starts_with(b"\0asm"), "a guest is WebAssembly");
    let at = guest.windows(TEXT.len()).position(|window| window == TEXT).context("the guest does not say its text")?;
    let mut bytes = guest.to_vec();
    bytes[at..at + TEXT.len()].copy_from_slice(format!("version-{n:04}").as_bytes());
    Ok(bytes)
}

/// The guest with a second core module in it that nobody instantiates, and that has to be compiled all the same. Each time another one,
/// which is not in the cache.
fn large(guest: &[u8]) -> Vec<u8> {
    let mut bytes = guest.to_vec();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // A custom section with an empty name.
    bytes.extend([0, 17, 0]);
    bytes.extend(now.as_nanos().to_le_bytes());
    let module = large_module();
    bytes.push(1); // a core module section (component model, binary format)
    leb(&mut bytes, module.len() as u32);
    bytes.extend(module);
    bytes
}

/// A core module with many functions that compute something.
fn large_module() -> Vec<u8> {
    let mut body = vec![0];
    for n in 0..40_u8 {
        // local.get 0, i32.const n, i32.mul, i32.const n, i32.rotl, local.set 0
        body.extend([0x20, 0, 0x41, n, 0x6c, 0x41, n, 0x77, 0x21, 0]);
    }
    body.extend([0x20, 0, 0x0b]);

    let mut functions = Vec::new();
    leb(&mut functions, FUNCTIONS);
    functions.extend(std::iter::repeat_n(0, FUNCTIONS as usize));
    let mut code = Vec::new();
    leb(&mut code, FUNCTIONS);
    for _ in 0..FUNCTIONS {
        leb(&mut code, body.len() as u32);
        code.extend(&body);
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, section) in [(1, vec![1, 0x60, 1, 0x7f, 1, 0x7f]), (3, functions), (10, code)] {
        module.push(id);
        leb(&mut module, section.len() as u32);
        module.extend(section);
    }
    module
}

fn leb(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
