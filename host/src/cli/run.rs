//! `astra-host run`: serves a module, or a Cargo package that it builds first, until it is told to stop.
//!
//! The standard output gets the start-up lines, the standard error the log: access lines, what guests print, what the host
//! has to say.

use std::{
    env, io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use super::{say, spinner::Spinner};
use crate::{
    config::{self, Config, HandlerConfig, ValueError},
    guest::{CacheMode, Reset},
    host::{Host, Loaded, RunningHost},
    log_line::LogFormat,
    log_writer::LogWriter,
    package,
};

/// Serve a module, or a Cargo package that is built first
#[derive(Args)]
pub(super) struct Run {
    /// A .wasm file, or the directory of a Cargo package that builds one
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Address to listen on; port 0 takes a free one; may be repeated
    #[arg(long, value_name = "HOST:PORT", default_value = config::DEFAULT_LISTEN)]
    listen: Vec<String>,
    /// Grant an environment variable; K alone takes its value from the environment of the host; may be repeated
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// Grant the environment variables in a file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Grant a directory, read-only unless :rw; may be repeated
    #[arg(long, value_name = "HOST[::GUEST][:rw]")]
    dir: Vec<String>,
    /// Longest time from the start of a guest to the head of its response
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    deadline: String,
    /// Longest time from the start of a guest to its end [default: no limit]
    #[arg(long, value_name = "DURATION")]
    stream_deadline: Option<String>,
    /// Most CPU time of a guest [default: no limit]
    #[arg(long, value_name = "DURATION")]
    cpu: Option<String>,
    /// Most memory of a guest
    #[arg(long, value_name = "SIZE", default_value = "128MiB")]
    max_memory: String,
    /// Largest request body
    #[arg(long, value_name = "SIZE", default_value = "10MiB")]
    max_body: String,
    /// Requests that run or wait in a guest at once
    #[arg(long, value_name = "N", default_value_t = config::DEFAULT_MAX_WORKERS.to_string())]
    max_workers: String,
    /// How a guest's memory is made fresh: copied back, or found by scanning (faster, see README)
    #[arg(long, value_enum, value_name = "HOW", default_value_t = ResetFlag::Copy)]
    reset: ResetFlag,
    /// Compile the module anew and keep nothing on disk
    #[arg(long)]
    no_cache: bool,
    /// A line for each request on the standard error [default: text, or off with --quiet]
    #[arg(long, value_enum, value_name = "FORMAT")]
    access_log: Option<AccessLogFlag>,
    /// Print only the addresses at start, and no access log unless asked for
    #[arg(long)]
    quiet: bool,
    /// A proxy whose `forwarded` and `x-forwarded-*` are believed, as address or range; may be repeated
    #[arg(long, value_name = "IP[/BITS]")]
    trusted_proxy: Vec<String>,
    /// How long running requests may take to finish after SIGINT or SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    drain: String,
    /// Allow a .cwasm file: it is machine code that can do anything this process can
    #[arg(long)]
    trust_precompiled: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ResetFlag {
    Copy,
    Scan,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum AccessLogFlag {
    Text,
    Json,
    Off,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let mut config = self.config()?;
        let drain = config::duration("--drain", &self.drain, Duration::ZERO..=DAY)?;
        if self.path.is_dir() {
            // A handler is called like its module, not like the directory, which may be `.`.
            let built = HandlerConfig::new(package::module(&self.path)?);
            (config.handlers[0].name, config.handlers[0].module) = (built.name, built.module);
        }

        let log = self.start_log()?;
        let host = {
            let _spinner = (!self.quiet).then(|| Spinner::start(format!("compiling {}", self.path.display())));
            Host::from_config(config.clone()).log(log.log()).start()?
        };
        // Before the addresses are printed: a script may stop us as soon as it sees them.
        let mut signals = catch_signals().context("cannot catch signals")?;
        self.report(&host);

        signals.forever().next();
        log::info!("finishing what runs, for at most {}; a second signal ends it", humantime::format_duration(drain));
        if !host.shutdown(drain) {
            log::warn!("requests were cut: they took longer than `--drain {}`", self.drain);
        }
        Ok(())
    }

    /// What the flags mean, or which of them is wrong.
    fn config(&self) -> Result<Config, ValueError> {
        let time = |name, text: &str| config::duration(name, text, MILLISECOND..=DAY);
        let from_host = |key: &str| env::var(key).ok();

        let mut config = Config::new(&self.path);
        for text in &self.listen {
            config.server.listen.push(config::address("--listen", text)?);
        }
        for text in &self.trusted_proxy {
            config.server.trusted_proxies.push(config::network("--trusted-proxy", text)?);
        }
        config.server.max_body = config::size("--max-body", &self.max_body, 0..=1 << 40)?;
        config.server.max_workers = config::count("--max-workers", &self.max_workers, 1..=10_000)?;
        config.server.reset = match self.reset {
            ResetFlag::Copy => Reset::Copy,
            ResetFlag::Scan => Reset::Scan,
        };
        config.server.cache = if self.no_cache { CacheMode::Off } else { CacheMode::On };
        config.server.trust_precompiled = self.trust_precompiled;

        let grants = &mut config.handlers[0].grants;
        for path in &self.env_file {
            config::add_variables(&mut grants.env, config::env_file("--env-file", path, from_host)?);
        }
        for text in &self.env {
            config::add_variables(&mut grants.env, [config::variable("--env", text, from_host)?]);
        }
        for text in &self.dir {
            grants.dirs.push(config::dir("--dir", text)?);
        }

        let limits = &mut config.handlers[0].limits;
        limits.deadline = time("--deadline", &self.deadline)?;
        limits.stream_deadline =
            self.stream_deadline.as_deref().map(|text| time("--stream-deadline", text)).transpose()?;
        limits.cpu = self.cpu.as_deref().map(|text| time("--cpu", text)).transpose()?;
        limits.memory = config::size("--max-memory", &self.max_memory, 1 << 20..=4 << 30)?;
        Ok(config)
    }

    /// Starts the writer of everything that is logged, and sends it what crates report through `log`.
    fn start_log(&self) -> anyhow::Result<LogWriter> {
        let default = if self.quiet { AccessLogFlag::Off } else { AccessLogFlag::Text };
        let access_log = self.access_log.unwrap_or(default);
        let format = if access_log == AccessLogFlag::Json { LogFormat::Json } else { LogFormat::Text };
        let writer = LogWriter::start(format, access_log != AccessLogFlag::Off, io::stderr())
            .context("cannot start the thread that writes the log")?;
        // Fails only when there is a logger already, which then has been chosen by someone who knows better.
        if log::set_boxed_logger(Box::new(writer.log())).is_ok() {
            log::set_max_level(if self.quiet { log::LevelFilter::Warn } else { log::LevelFilter::Info });
        }
        Ok(writer)
    }

    fn report(&self, host: &RunningHost) {
        for note in host.notes() {
            log::warn!("{note}");
        }
        for Loaded { module, info, compiled, .. } in host.loaded().iter().filter(|_| !self.quiet) {
            let size = config::format_size(info.size);
            say(&format!("{}: {}, {size}, {compiled}", module.display(), info.kind));
        }
        for address in host.local_addrs() {
            say(&format!("listening on http://{address}"));
        }
    }
}

/// Catches SIGINT and SIGTERM. The first is left to whoever asks; the second ends the process from inside the signal
/// handler, so that nothing that hangs can be in its way.
fn catch_signals() -> io::Result<Signals> {
    let caught = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the flag that ends the process is looked at before this signal sets it.
        flag::register_conditional_shutdown(signal, super::FAILED.into(), Arc::clone(&caught))?;
        flag::register(signal, Arc::clone(&caught))?;
    }
    Signals::new([SIGINT, SIGTERM])
}
