//! Everything at once, for a long time: clients that ask well and look at each answer, clients that do not, with TLS and without, guests that
//! trap, loop and sleep, swaps, reloads, new certificates and kills. In the end the host must be as large as it was after the first minute,
//! and its log must have each request once.
//!
//! Clients stop twice, after the first minute (or quarter, if that is shorter) and at the end; what the host has then is compared.

mod access;
mod authority;
mod configuration;
mod good;
mod handshake;
mod hostile;
mod operating;
mod random;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};

use self::authority::Authority;
use self::configuration::Configuration;
use self::random::Random;
use super::swap::version;
use crate::clients::Clients;
use crate::contenders::Contenders;
use crate::endpoint::Endpoint;
use crate::folder::Folder;
use crate::operator::Operator;
use crate::report::{Figure, Report};
use crate::server::Server;
use crate::{Options, Pin};

/// Modules that take turns at being `version`.
const VERSIONS: u32 = 3;

const GOOD: u64 = 4;
const HOSTILE: u64 = 8;
/// Clients that are hostile to TLS alone.
const SPOILING: u64 = 4;
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
    let authority = Authority::new(&folder)?;
    let config = Configuration {
        contenders,
        version: &versions[0],
        authority: &authority,
        path: folder.path().join("astra.toml"),
    };
    config.write(0)?;
    let flags = ["--control", &control.display().to_string(), "--access-log", "json", "--listen", "https://{addr}"];
    let mut contender = contenders.astra_host_of("astra-host", &config.path, &flags);
    contender.log = Some(log.clone());
    let server = Server::start(&contender, Pin::Off)?;
    let operator = Operator { astra_host: &contender.program, control: &control };

    let secure = operator.https()?;
    let endpoint = |config: ClientConfig| Endpoint { addr: secure, tls: Some(Arc::new(config)) };
    let (new, old) = (endpoint(authority.clients(&TLS13)?), endpoint(authority.clients(&TLS12)?));
    let endpoints = [Endpoint::plain(server.addr), new, Endpoint::plain(server.addr), old];
    let stranger = endpoint(authority.strangers()?);
    let soak = Soak { server, operator, config, versions: &versions, endpoints, stranger, seen: Seen::default() };
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
        count("good answers over TLS", seen.over_tls),
        count("hostile clients", seen.hostile),
        count("spoiled handshakes", seen.handshakes),
        count("swaps", seen.swaps),
        count("reloads", seen.reloads),
        count("certificates", seen.renewals),
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
    report.at_most(
        "soak: swaps, reloads and certificates that failed".to_owned(),
        seen.failed.into_inner() as f64,
        0.0,
    );
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
    /// Clients take turns at them: half of them speak TLS, of both versions.
    endpoints: [Endpoint; 4],
    /// Whoever connects here looks at the certificate.
    stranger: Endpoint,
    seen: Seen,
}

/// Written by all clients, read when they are done.
#[derive(Default)]
struct Seen {
    /// Of each answer to a good client that was as it should be.
    ids: Mutex<Vec<u64>>,
    wrong: Mutex<Wrong>,
    over_tls: AtomicU64,
    hostile: AtomicU64,
    handshakes: AtomicU64,
    /// Hostile clients that were neither answered nor cut.
    hung: AtomicU64,
    swaps: AtomicU64,
    reloads: AtomicU64,
    renewals: AtomicU64,
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

    fn right(&self, ids: impl IntoIterator<Item = u64>, over_tls: u64) {
        self.over_tls.fetch_add(over_tls, Ordering::Relaxed);
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
        let clients = Clients { endpoints: &self.endpoints, pin: Pin::Off, pause: PAUSE };
        let others = || {
            let started = Instant::now();
            thread::scope(|scope| {
                for n in 0..GOOD {
                    let (endpoint, random) = (self.endpoint(n), Random::new(seed * 100 + n));
                    scope.spawn(|| good::ask(endpoint, random, &is_over, &self.seen));
                }
                for n in 0..HOSTILE {
                    let (endpoint, random) = (self.endpoint(n), Random::new(seed * 100 + GOOD + n));
                    scope.spawn(|| hostile::attack(endpoint, random, &is_over, &self.seen));
                }
                for n in 0..SPOILING {
                    // Those with TLS are the odd ones.
                    let (endpoint, random) = (self.endpoint(2 * n + 1), Random::new(seed * 100 + GOOD + HOSTILE + n));
                    scope.spawn(|| handshake::spoil(endpoint, random, &is_over, &self.seen));
                }
                for n in 0..VICTIMS {
                    let endpoint = self.endpoint(n);
                    scope.spawn(|| {
                        good::wait_for_kill(endpoint, &is_over, &self.seen);
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
        self.seen.right(answers.ids, answers.over_tls);
        Ok(())
    }

    fn endpoint(&self, n: u64) -> &Endpoint {
        &self.endpoints[n as usize % self.endpoints.len()]
    }

    fn size(&self) -> Result<Size> {
        thread::sleep(CALM);
        let (threads, descriptors) = (self.server.threads()?, self.server.descriptors()?);
        Ok(Size { threads: threads as f64, descriptors: descriptors as f64, rss: self.server.rss()? as f64 })
    }
}
