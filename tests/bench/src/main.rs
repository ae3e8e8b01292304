//! `cargo run --release -p bench -- [scenario…]`: starts each server in turn, loads it, prints a table, writes JSON.
//! Every server is started by this process and stopped by its pid; all listen on 127.0.0.1 and ports of their own.

mod chart;
mod clients;
mod contenders;
mod endpoint;
mod folder;
#[path = "../../e2e/harness/hostility.rs"]
#[allow(dead_code, reason = "the tests ask for each of its ways by itself")]
mod hostility;
mod http1;
mod load;
mod open_loop;
mod operator;
mod report;
mod scenarios;
mod server;
mod there_and_back;
mod tool;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::contenders::Contenders;
use crate::report::Report;

/// Measures astra-server and astra-host against their peers.
#[derive(Parser)]
pub(crate) struct Options {
    /// What to measure; everything but `curves` and `isolation` if none is named
    scenarios: Vec<Scenario>,
    /// Seconds of load a round
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Rounds; contenders take turns in each, the median counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Server on one core and load on another, or both wherever the kernel puts them
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
    /// The `wasmtime` to compare with; without it, the one in PATH
    #[arg(long)]
    wasmtime: Option<PathBuf>,
    /// The `workerd` to compare with; without it, the one in PATH
    #[arg(long)]
    workerd: Option<PathBuf>,
    /// The `astra-host` under test; without it, the one built from here
    #[arg(long)]
    astra_host: Option<PathBuf>,
    /// Idle connections of the `idle` scenario
    #[arg(long, default_value_t = 10_000)]
    idle_connections: usize,
    /// Swaps of the `swap` scenario
    #[arg(long, default_value_t = 200)]
    swaps: u32,
    /// Seconds in which they are made
    #[arg(long, default_value_t = 60)]
    swap_seconds: u32,
    /// Seconds of the `soak` scenario
    #[arg(long, default_value_t = 1800)]
    soak_seconds: u32,
    /// Size of the body of the `gigabyte` scenario, in MiB
    #[arg(long, default_value_t = 1024)]
    body_mib: u64,
    /// Seconds of the `hostile` scenario
    #[arg(long, default_value_t = 60)]
    hostile_seconds: u32,
    /// Guests of the `isolation` scenario, in each setting; a tenth of them where all of a memory is copied back
    #[arg(long, default_value_t = 10_000_000)]
    isolation_guests: u64,
    /// Where to write the figures
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// A native handler: astra-server, hyper on Tokio, the astra crate
    Native,
    /// The same over TLS, on connections that are kept and on new ones: astra-server, hyper on Tokio
    Tls,
    /// The hello guest: astra-host, `wasmtime serve` in three ways, workerd, Node, a native handler
    Hello,
    /// 900 connections whose guests sleep 100 ms
    Sleep,
    /// Idle keep-alive connections, and what hello does beside them
    Idle,
    /// From the start of the process to the first answer, module in the cache, and memory at rest
    Start,
    /// A large body up and down through the echo guest
    Gigabyte,
    /// Modules swapped under load, over both versions of HTTP
    Swap,
    /// A hello of WASI 0.3
    Wasip3,
    /// A hello that is a CGI program
    Cgi,
    /// The hello guest with a stack of 1 MiB
    Stack,
    /// Bodies posted to the echo guest
    Echo,
    /// Latency at half of what can be served
    Half,
    /// Hello with an access log
    Observed,
    /// Hellos in Python and JavaScript
    Languages,
    /// A guest that asks another server
    Fetch,
    /// A thousand guests that wait for another server
    Upstreams,
    /// Hello beside 4,000 slow connections of slowhttptest
    Slow,
    /// Four times as many requests as can be served
    Overload,
    /// Good and hostile clients and guests, swaps, reloads, kills, for a long time
    Soak,
    /// Guests that do their worst, and what that does to the host's memory
    Hostile,
    /// Rate and p99 over connections, the size of bodies and a guest's work, drawn beside the JSON file
    Curves,
    /// Millions of guests that look for what others have left
    Isolation,
}

impl Scenario {
    /// Those of a run that names none: not what takes half an hour by itself, but for `soak`.
    fn usual() -> Vec<Self> {
        let all = Self::value_variants().iter().copied();
        all.filter(|scenario| !matches!(scenario, Self::Curves | Self::Isolation)).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Pinned,
    Unpinned,
    Both,
}

impl Options {
    /// The settings each scenario under load is measured in; on one core there is nothing to pin apart.
    fn pins(&self) -> Vec<Pin> {
        let one_core = std::thread::available_parallelism().map_or(1, usize::from) < 2;
        match self.mode {
            _ if one_core => vec![Pin::Off],
            Mode::Pinned => vec![Pin::On],
            Mode::Unpinned => vec![Pin::Off],
            Mode::Both => vec![Pin::On, Pin::Off],
        }
    }
}

/// Whether server and load have a core each (the first and the second).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    On,
    Off,
}

impl Pin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Pin::On => "pinned",
            Pin::Off => "unpinned",
        }
    }

    /// Keeps this thread, which is load, to its core.
    pub(crate) fn to_load(self) {
        if self == Pin::On {
            let mut second = rustix::thread::CpuSet::new();
            second.set(1);
            // `pins` has seen that there is a second core; where it is not ours, the kernel's choice is as good.
            let _ = rustix::thread::sched_setaffinity(None, &second);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let chosen = if options.scenarios.is_empty() { Scenario::usual() } else { options.scenarios.clone() };
    load::check_wrk()?;
    let contenders = Contenders::prepare(&options, &chosen)?;
    let mut report = Report::new(&contenders)?;
    for scenario in chosen {
        let measured = match scenario {
            Scenario::Native => scenarios::native(&options, &contenders, &mut report),
            Scenario::Tls => scenarios::tls(&options, &contenders, &mut report),
            Scenario::Hello => scenarios::hello(&options, &contenders, &mut report),
            Scenario::Sleep => scenarios::sleep(&options, &contenders, &mut report),
            Scenario::Idle => scenarios::idle(&options, &contenders, &mut report),
            Scenario::Start => scenarios::start(&options, &contenders, &mut report),
            Scenario::Gigabyte => scenarios::gigabyte(&options, &contenders, &mut report),
            Scenario::Swap => scenarios::swap(&options, &contenders, &mut report),
            Scenario::Wasip3 => scenarios::wasip3(&options, &contenders, &mut report),
            Scenario::Cgi => scenarios::cgi(&options, &contenders, &mut report),
            Scenario::Stack => scenarios::stack(&options, &contenders, &mut report),
            Scenario::Echo => scenarios::echo(&options, &contenders, &mut report),
            Scenario::Half => scenarios::half(&options, &contenders, &mut report),
            Scenario::Observed => scenarios::observed(&options, &contenders, &mut report),
            Scenario::Languages => scenarios::languages(&options, &contenders, &mut report),
            Scenario::Fetch => scenarios::fetch(&options, &contenders, &mut report),
            Scenario::Upstreams => scenarios::upstreams(&options, &contenders, &mut report),
            Scenario::Slow => scenarios::slow(&options, &contenders, &mut report),
            Scenario::Overload => scenarios::overload(&options, &contenders, &mut report),
            Scenario::Soak => scenarios::soak(&options, &contenders, &mut report),
            Scenario::Hostile => scenarios::hostile(&options, &contenders, &mut report),
            Scenario::Curves => scenarios::curves(&options, &contenders, &mut report),
            Scenario::Isolation => scenarios::isolation(&options, &contenders, &mut report),
        };
        // After each scenario, so that a run that ends early leaves what it has.
        report.write(&options.json)?;
        measured?;
    }
    report.print_checks();
    Ok(())
}
