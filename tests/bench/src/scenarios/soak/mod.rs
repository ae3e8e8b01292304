//! Everything at once, for a long time: clients that ask well and look at each answer, clients that do not, guests that trap, loop and sleep, swaps,
//! reloads and kills. In the end the host must be as large as it was after the first minute, and its log must have each request once.
//!
//! Clients stop twice, after the first minute (or quarter, if that is shorter) and at the end; what the host has then is compared.

mod access;
mod good;
mod hostile;
mod operating;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::swap::version;
use crate::clients::Clients;
use crate::contenders::Contenders;
use crate::folder::Folder;
use crate::operator::Operator;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::{Options, Pin};

/// Modules that take turns at being `version`.
const VERSIONS: u32 = 3;

const GOOD: u64 = 4;
const HOSTILE: u64 = 8;
/// Clients whose requests an operator kills.
const VICTIMS: u64 = 2;

/// Between two requests of one client or stream that looks at revisions: the soak is long, not heavy.
const PAUSE: Duration = Duration::from_millis(50);

/// Longer than the host keeps connections (`idle_timeout` below) and threads (6 s) that have nothing to do.
const CALM: Duration = Duration::from_secs(15);

/// Threads, and descriptors, that there may be more of.
const SPARE: f64 = 8.0;

/// How much larger resident memory may be.
const GROWTH: f64 = 1.2;

/// Of what was wrong, the report has so many texts.
const TOLD: usize = 20;

pub(crate) fn soak(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let folder = Folder::new()?;
    let (control, log) = (folder.path().join("control"), folder.path().join("log"));
    let guest = std::fs::read(contenders.example_guest("says_its_version"))?;
    let versions = (1..=VERSIONS).map(|n| folder.file(&format!("version-{n}.wasm"), version(&guest, n)?));
    let versions = versions.collect::<Result<Vec<_>>>()?;
    let config = Configuration { contenders, version: &versions[0], path: folder.path().join("astra.toml") };
    config.write(0)?;
    let flags = ["--control", &control.display().to_string(), "--access-log", "json"];
    let contender = contenders.astra_host_of("astra-host", &config.path, &flags);
    let server = Server::start_logging(&contender, Pin::Off, &log)?;
    let operator = Operator { astra_host: &contender.program, control: &control };

    let soak = Soak { server, operator, config, versions: &versions, seen: Seen::default() };
    let whole = Duration::from_secs(options.soak_seconds.into());
    let first = (whole / 4).min(Duration::from_secs(60));
    soak.run(first, 1)?;
    let before = soak.size()?;
    soak.run(whole - first, 2)?;
    let after = soak.size()?;

    let Soak { server, seen, .. } = soak;
    let in_order = server.stop(Duration::from_secs(60))?;
    let logged = access::read(&log)?;
    let ids = seen.ids.into_inner().unwrap_or_else(PoisonError::into_inner);
    let not_once = ids.iter().filter(|id| logged.times(**id) != 1).count();
    let wrong = seen.wrong.into_inner().unwrap_or_else(PoisonError::into_inner);

    let count = |name, counter: AtomicU64| Figure { name, rounds: vec![counter.into_inner() as f64] };
    let figure = |name, value: f64| Figure { name, rounds: vec![value] };
    let figures = [
        figure("seconds", whole.as_secs_f64()),
        figure("good answers", ids.len() as f64),
        count("hostile clients", seen.hostile),
        count("swaps", seen.swaps),
        count("reloads", seen.reloads),
        count("kills", seen.kills),
        figure("requests logged", logged.lines as f64),
        figure("log lines dropped", logged.dropped as f64),
        figure("threads before", before.threads),
        figure("threads after", after.threads),
        figure("descriptors before", before.descriptors),
        figure("descriptors after", after.descriptors),
        figure("RSS MiB before", before.rss / 1024.0),
        figure("RSS MiB after", after.rss / 1024.0),
    ];
    report.row("soak", "unpinned", contender.name, &contender.shown(), &figures);
    for text in wrong.texts.iter().chain(logged.errors.iter().take(TOLD)) {
        report.note(text);
    }
    report.at_most("soak: wrong answers to good clients".to_owned(), wrong.count as f64, 0.0);
    report.at_most("soak: good answers that are not in the log exactly once".to_owned(), not_once as f64, 0.0);
    report.at_most("soak: requests that are in the log twice".to_owned(), logged.twice() as f64, 0.0);
    report.at_most("soak: log lines that are no JSON".to_owned(), logged.broken as f64, 0.0);
    report.at_most("soak: errors of the host's own in the log".to_owned(), logged.errors.len() as f64, 0.0);
    report.at_most("soak: hostile clients that nobody cut".to_owned(), seen.hung.into_inner() as f64, 0.0);
    report.at_most("soak: swaps and reloads that failed".to_owned(), seen.failed.into_inner() as f64, 0.0);
    report.at_most("soak: threads more".to_owned(), after.threads - before.threads, SPARE);
    report.at_most("soak: descriptors more".to_owned(), after.descriptors - before.descriptors, SPARE);
    report.at_most("soak: RSS after / before".to_owned(), after.rss / before.rss, GROWTH);
    report.at_least("soak: ended in order on SIGTERM".to_owned(), f64::from(u8::from(in_order)), 1.0);
    Ok(())
}

struct Soak<'a> {
    server: Server,
    operator: Operator<'a>,
    config: Configuration<'a>,
    versions: &'a [PathBuf],
    seen: Seen,
}

/// Written by all clients, read when they are done.
#[derive(Default)]
struct Seen {
    /// Of each answer to a good client that was as it should be.
    ids: Mutex<Vec<u64>>,
    wrong: Mutex<Wrong>,
    hostile: AtomicU64,
    /// Hostile clients that were neither answered nor cut.
    hung: AtomicU64,
    swaps: AtomicU64,
    reloads: AtomicU64,
    kills: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Wrong {
    count: u64,
    texts: Vec<String>,
}

impl Seen {
    fn wrong(&self, count: u64, text: impl FnOnce() -> String) {
        if count > 0 {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).count += count;
            self.told(text());
        }
    }

    fn told(&self, text: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.texts.len() < TOLD {
            wrong.texts.push(text);
        }
    }

    fn right(&self, ids: impl IntoIterator<Item = u64>) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }
}

/// What the host has when nobody asks for anything.
struct Size {
    threads: f64,
    descriptors: f64,
    /// KiB
    rss: f64,
}

impl Soak<'_> {
    /// All clients and the operator, for as long as `time`.
    fn run(&self, time: Duration, seed: u64) -> Result<()> {
        let (is_over, victims) = (AtomicBool::new(false), AtomicU64::new(VICTIMS));
        let clients = Clients { addr: self.server.addr, pin: Pin::Off, pause: PAUSE };
        let others = || {
            let started = Instant::now();
            thread::scope(|scope| {
                for n in 0..GOOD {
                    let random = Random::new(seed * 100 + n);
                    scope.spawn(|| good::ask(self.server.addr, random, &is_over, &self.seen));
                }
                for n in 0..HOSTILE {
                    let random = Random::new(seed * 100 + GOOD + n);
                    scope.spawn(|| hostile::attack(self.server.addr, random, &is_over, &self.seen));
                }
                for _ in 0..VICTIMS {
                    scope.spawn(|| {
                        good::wait_for_kill(self.server.addr, &is_over, &self.seen);
                        victims.fetch_sub(1, Ordering::SeqCst);
                    });
                }
                let operating = scope.spawn(|| self.operate(&is_over, &victims));
                thread::sleep(time.saturating_sub(started.elapsed()));
                is_over.store(true, Ordering::SeqCst);
                operating.join().map_err(|_| anyhow!("a panic"))?
            })
        };
        let (answers, ()) = clients.ask(time, others)?;
        self.seen
            .wrong(answers.failed, || "a client of `version` got no answer, or another status than 200".to_owned());
        self.seen.wrong(answers.mixed, || "an answer of two revisions".to_owned());
        self.seen.right(answers.ids);
        Ok(())
    }

    fn size(&self) -> Result<Size> {
        thread::sleep(CALM);
        let (threads, descriptors) = (self.server.threads()?, self.server.descriptors()?);
        Ok(Size { threads: threads as f64, descriptors: descriptors as f64, rss: self.server.rss()? as f64 })
    }
}

/// The configuration file, which reloads read again.
struct Configuration<'a> {
    contenders: &'a Contenders,
    version: &'a Path,
    path: PathBuf,
}

impl Configuration<'_> {
    /// Writes it; `turn` makes it another than before.
    fn write(&self, turn: u64) -> Result<()> {
        let package = |name: &str| self.contenders.guest(name);
        let example = |name: &str| self.contenders.example_guest(name).display().to_string();
        let version = self.version.display().to_string();
        let echo = format!("env = {{ TURN = \"{turn}\" }}");
        let handlers = [
            ("hello", package("hello"), "/hello", ""),
            ("echo", package("echo"), "/echo", echo.as_str()),
            ("slow", package("slow"), "/slow", ""),
            ("victim", package("slow"), "/victim", "limits = { deadline = \"1h\" }"),
            ("version", version, "/*", ""),
            ("trap", example("trap_before_head"), "/trap", ""),
            ("late", example("trap_after_head"), "/late", ""),
            ("loop", example("loops_for_ever"), "/loop", "limits = { deadline = \"200ms\", in_flight = 1, queue = 0 }"),
        ];
        // Short time-outs, so that each of them is reached often.
        let mut text =
            "[server]\nheader_timeout = \"2s\"\nidle_timeout = \"5s\"\nwrite_timeout = \"2s\"\nbody_timeout = \"2s\"\n\
            http2_max_control_frames = 1000\ndrain = \"5s\"\n"
                .to_owned();
        for (name, module, route, more) in handlers {
            let handler = format!("name = {name:?}\nmodule = {module:?}\nroute = {route:?}\n{more}\n");
            text.push_str(&format!("[[handler]]\n{handler}"));
        }
        // Not half of it is read, whenever that is.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, &self.path)?)
    }
}

/// Numbers that look random and are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}
