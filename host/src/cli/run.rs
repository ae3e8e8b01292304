//! `astra-host run`: serves a module, a Cargo package that it builds first, or what a configuration file says, until it is told to stop.
//!
//! The standard output gets the start-up lines, the standard error the log: access lines, what guests print, what the host
//! has to say. SIGINT and SIGTERM stop it, SIGHUP reads the configuration again, SIGUSR1 and SIGUSR2 do nothing and say so.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use signal_hook::{
    consts::{SIGHUP, SIGUSR1, SIGUSR2},
    iterator::Signals,
};

use super::{
    say,
    signals::Caught,
    spinner::Spinner,
    systemd::{self, Notify},
};
use crate::{
    config::{self, CertificateFiles, Config, HandlerConfig, ValueError},
    config_file,
    control::socket,
    guest::{CacheMode, OutboundRule, Reset},
    host::{Host, HostBuilder, Loaded, RunningHost},
    host_error::HostError,
    log_line::LogFormat,
    log_writer::LogWriter,
    operator::{Operator, Relaunch},
    package::{self, Cancel},
    state_dir,
    take_over::{Estate, TakeOver},
};

/// Serve a module, a Cargo package that is built first, or what a configuration file says
#[derive(Args, Clone)]
pub(super) struct Run {
    /// A .wasm file, the directory of a Cargo package that builds one, or a .toml file
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
    /// Take the place of the running host with this control socket: its sockets, once the modules are loaded
    #[arg(long, value_name = "CONTROL", overrides_with = "take_over")]
    pub(super) take_over: Option<PathBuf>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

/// Everything but what is served.
#[derive(Args, Clone)]
pub(super) struct Flags {
    #[command(flatten)]
    pub(super) places: Places,
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    pub(super) handler: HandlerFlags,
    /// A line for each request on the standard error [default: text, or off with --quiet]
    #[arg(long, value_enum, value_name = "FORMAT")]
    access_log: Option<AccessLogFlag>,
    /// What the host has to say on the standard error: this and what is worse [default: the level that RUST_LOG says, else info, or warn with --quiet]
    #[arg(long, value_enum, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Print only the addresses at start, and no access log unless asked for
    #[arg(long)]
    quiet: bool,
}

/// Where this host is, which differs from run to run: these flags go before what a configuration file says.
#[derive(Args, Clone)]
pub(super) struct Places {
    /// Address to listen on, with https:// before it to speak TLS there, or unix:PATH; port 0 takes a free one; may be repeated [default: 127.0.0.1:8080, or https://127.0.0.1:8443 with --tls-cert]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// The control socket [default: one in the user's runtime directory]
    #[arg(long, value_name = "PATH", conflicts_with = "no_control")]
    control: Option<PathBuf>,
    /// Have no control socket
    #[arg(long)]
    no_control: bool,
    /// Where swaps are recorded, so that they outlive a restart [default: a directory of the user's]
    #[arg(long, value_name = "DIR", conflicts_with = "no_state")]
    pub(super) state: Option<PathBuf>,
    /// Record nothing: a restart serves what is configured
    #[arg(long)]
    pub(super) no_state: bool,
}

/// What a configuration file says under `[server]`.
#[derive(Args, Clone, Default, PartialEq)]
pub(super) struct ServerFlags {
    /// The certificate to show where TLS is spoken, and below it what leads to a root, as PEM; may be repeated, each with its key: a client gets the first that is for the name it asks for
    #[arg(long, value_name = "FILE")]
    tls_cert: Vec<PathBuf>,
    /// The certificate's key, as PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Vec<PathBuf>,
    /// Largest request body [default: 10MiB]
    #[arg(long, value_name = "SIZE")]
    max_body: Option<String>,
    /// Requests that run or wait in a guest at once [default: 1024]
    #[arg(long, value_name = "N")]
    max_workers: Option<String>,
    /// How a guest's memory is made fresh: all of it, or the pages that the kernel says were written [default: scan where the kernel can]
    #[arg(long, value_enum, value_name = "HOW")]
    reset: Option<ResetFlag>,
    /// Compile the module anew and keep nothing on disk
    #[arg(long)]
    no_cache: bool,
    /// A proxy whose `forwarded` and `x-forwarded-*` are believed, as address or range, or unix: for those that come over Unix sockets; may be repeated
    #[arg(long, value_name = "IP[/BITS]")]
    trusted_proxy: Vec<String>,
    /// How long running requests may take to finish after a swap, and after SIGINT or SIGTERM [default: 30s]
    #[arg(long, value_name = "DURATION")]
    drain: Option<String>,
    /// Allow a .cwasm file: it is machine code that can do anything this process can
    #[arg(long)]
    trust_precompiled: bool,
}

/// What a configuration file says about each handler.
#[derive(Args, Clone, Default, PartialEq)]
pub(super) struct HandlerFlags {
    /// Swap in the module, or build the package anew, whenever it changes
    #[arg(long)]
    pub(super) watch: bool,
    /// Grant an environment variable; K alone takes its value from the environment of the host; may be repeated
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// Grant the environment variables in a file, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Grant a directory, read-only unless :rw; may be repeated
    #[arg(long, value_name = "HOST[::GUEST][:rw]")]
    dir: Vec<String>,
    /// Grant outgoing HTTP requests to SCHEME://HOST[:PORT]: HOST is a name that leads to public addresses, *.NAME for those below it, *, or an address; or a table as in a configuration file, { url = "https://api.example.com", private = true, roots = "ca.pem" }; may be repeated
    #[arg(long, value_name = "URL|TABLE")]
    outbound: Vec<String>,
    /// The same for a name that may lead to loopback, private and link-local addresses too; may be repeated
    #[arg(long, value_name = "URL")]
    outbound_private: Vec<String>,
    /// Grant TCP connections to a name, which the guest may look up, or to an address or range, IPv6 in brackets ([::1]:80); PORT may be *; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// Grant looking up a name, or *.NAME for those below it; may be repeated
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Set a value that the guest reads through wasi:config; K alone takes it from the environment of the host; may be repeated
    #[arg(long, value_name = "K=V")]
    config_var: Vec<String>,
    /// Give a CGI program an argument, behind its name; may be repeated
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Longest time from the start of a guest to the head of its response [default: 30s]
    #[arg(long, value_name = "DURATION")]
    deadline: Option<String>,
    /// Longest time from the start of a guest to its end [default: no limit]
    #[arg(long, value_name = "DURATION")]
    stream_deadline: Option<String>,
    /// Most CPU time of a guest [default: no limit]
    #[arg(long, value_name = "DURATION")]
    cpu: Option<String>,
    /// Most memory of a guest [default: 128MiB]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
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

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let sockets = systemd::sockets()?;
        let log = self.start_log()?;
        // Before the addresses are printed: a script may stop us as soon as it sees them.
        let mut caught = Caught::new().context("cannot catch signals")?;
        let (taken, estate) = match &self.take_over {
            Some(control) => {
                let (taken, estate) = TakeOver::ask(control)?;
                (Some(taken), estate)
            }
            None => (None, Estate::default()),
        };
        // A configuration that is wrong is told to the host that is to be replaced, too.
        let started = self.config().and_then(|config| {
            self.start(config, &log, &caught, |builder| {
                let builder = sockets.into_iter().fold(builder, HostBuilder::socket).inherit(estate);
                match relaunch() {
                    Ok(relaunch) => builder.relaunch(relaunch),
                    Err(error) => {
                        log::warn!("this host cannot be upgraded: {error}");
                        builder
                    }
                }
            })
        });
        let error = match started {
            Ok(host) => return self.serve(host, &mut caught.signals, taken),
            Err(error) => error,
        };
        if let Some(taken) = taken {
            taken.failed(&format!("{error:#}"));
        }
        if caught.stop() {
            log::info!("stopped: {error:#}");
            return Ok(());
        }
        Err(error)
    }

    /// Starts a host that does what `config` says, and reads the same again when it is told to. An operator stops it by ending the signals; a
    /// signal that stops it gives the start up.
    pub(super) fn start(
        &self,
        config: Config,
        log: &LogWriter,
        caught: &Caught,
        finish: impl FnOnce(HostBuilder) -> HostBuilder,
    ) -> anyhow::Result<RunningHost> {
        let (again, stop) = (self.clone(), caught.signals.handle());
        let given_up = Arc::<Cancel>::default();
        let mut builder = Host::from_config(config)
            .given_up_by(Arc::clone(&given_up))
            .log(log.log())
            .reload_with(move || again.config().map_err(|error| format!("{error:#}")))
            // Not by a signal: of those the second one ends the process at once, and systemd sends one after its `ExecStop`.
            .on_stop(move || stop.close());
        if self.is_file() {
            builder = builder.config_file(&self.path);
        }
        let _spinner = (!self.flags.quiet).then(|| Spinner::start(format!("compiling {}", self.path.display())));
        let _give_up = caught.give_up(given_up).context("cannot start the thread that gives a start up")?;
        let host = finish(builder).start()?;
        if caught.stop() {
            // Requests may have come in already.
            let drain = host.operator().drain();
            host.shutdown(drain);
            return Err(HostError::Stopped.into());
        }
        Ok(host)
    }

    /// Says where it listens, and waits until it is told to stop.
    pub(super) fn serve(
        &self,
        host: RunningHost,
        signals: &mut Signals,
        taken: Option<TakeOver>,
    ) -> anyhow::Result<()> {
        if let Some(taken) = taken {
            if let Err(error) = taken.ready() {
                // Requests may have come in already.
                let drain = host.operator().drain();
                host.shutdown(drain);
                return Err(error.into());
            }
            host.operator().settle();
        }
        self.report(&host);
        let notify = Arc::new(Notify::from_env());
        notify.ready();
        let reloads = Reloads::new(host.operator(), Arc::clone(&notify));
        let reloads = reloads.context("cannot start the thread that reads the configuration again")?;
        for signal in signals.forever() {
            match signal {
                // If there is one to come already, that will do.
                SIGHUP => drop(reloads.wanted.try_send(())),
                // What these are to nginx. Otherwise they would end the process.
                SIGUSR1 => log::warn!(
                    "SIGUSR1 does nothing: the log is the standard error, which whoever has opened it rotates"
                ),
                SIGUSR2 => log::warn!("SIGUSR2 does nothing: `astra-host upgrade` replaces this process by a new one"),
                _ => break,
            }
        }
        match host.operator().successor() {
            Some(pid) => notify.main_pid(pid),
            None => notify.stopping(),
        }
        // Left to the system, which lets go of it when the process has ended: who waits for the host does for that.
        std::mem::forget(host.operator().lock());
        let drain = host.operator().drain();
        log::info!("finishing what runs, for at most {}; a second signal ends it", humantime::format_duration(drain));
        if let Some(left) = host.shutdown(drain) {
            let drain = humantime::format_duration(drain);
            log::warn!("requests were cut, {left} of them in their guests: they took longer than `drain` ({drain})");
        }
        reloads.end();
        Ok(())
    }

    fn is_file(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "toml") && !self.path.is_dir()
    }

    /// What is to be served: what the file says, or the flags.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        let (mut config, control_left_out, state_left_out) = if self.is_file() {
            self.need_no_flags()?;
            let file = config_file::read(&self.path, |name| env::var(name).ok())?;
            (file.config, file.control_left_out, file.state_left_out)
        } else {
            (self.config_of_flags()?, true, true)
        };
        let server = &mut config.server;
        if !self.flags.places.listen.is_empty() {
            let addresses = self.flags.places.listen.iter().map(|text| config::listen("--listen", text, Path::new("")));
            server.listen = addresses.collect::<Result<_, _>>()?;
        }
        if !self.flags.server.tls_cert.is_empty() && !server.speaks_tls() {
            let allowed = "an address that begins with `https://` beside --tls-cert, such as `https://0.0.0.0:443`";
            return Err(config::not_allowed("--listen", allowed, &server.listen.join("`, `")).into());
        }
        // What a swap compiles is compiled by this program, on Linux even when its file has been replaced by a newer one.
        server.compile.program =
            if cfg!(target_os = "linux") { Some("/proc/self/exe".into()) } else { env::current_exe().ok() };
        let name = config.handlers.first().map_or("astra-host", |handler| handler.name.as_str());
        let name = if self.is_file() { config::handler_name(&self.path) } else { name.to_owned() };
        match &self.flags.places {
            Places { control: Some(path), .. } => server.control.socket = Some(std::path::absolute(path)?),
            Places { no_control: true, .. } => (server.control.socket, server.control.tcp) = (None, None),
            // The one by default has a process's number in it, which is that of the first of those that took each other's place.
            _ if control_left_out && let Some(path) = &self.take_over => {
                server.control.socket = Some(std::path::absolute(path)?);
            }
            _ if control_left_out => match socket::default_path(&name) {
                Ok(path) => server.control.socket = Some(path),
                Err(error) => log::warn!("there is no control socket: {error}"),
            },
            _ => {}
        }
        match &self.flags.places {
            Places { state: Some(path), .. } => server.state = Some(std::path::absolute(path)?),
            Places { no_state: true, .. } => server.state = None,
            _ if state_left_out => server.state = state_dir::default_path(&std::path::absolute(&self.path)?),
            _ => {}
        }
        Ok(config)
    }

    fn need_no_flags(&self) -> anyhow::Result<()> {
        if self.flags.server != ServerFlags::default() || self.flags.handler != HandlerFlags::default() {
            bail!(
                "`{}` says what is served: put what you gave as flags into it; only --listen, --control, --state, --access-log, --log-level and --quiet go beside it",
                self.path.display()
            );
        }
        Ok(())
    }

    /// What the flags mean, or which of them is wrong.
    fn config_of_flags(&self) -> anyhow::Result<Config> {
        let mut config = Config::new(&self.path);
        config.handlers[0].name = package::name(&self.path)?;
        self.flags.server.apply(&mut config)?;
        self.flags.handler.apply(&mut config.handlers[0])?;
        Ok(config)
    }

    /// Starts the writer of everything that is logged, and sends it what crates report through `log`.
    pub(super) fn start_log(&self) -> anyhow::Result<LogWriter> {
        let default = if self.flags.quiet { AccessLogFlag::Off } else { AccessLogFlag::Text };
        let access_log = self.flags.access_log.unwrap_or(default);
        let format = if access_log == AccessLogFlag::Json { LogFormat::Json } else { LogFormat::Text };
        let writer = LogWriter::start(format, access_log != AccessLogFlag::Off, io::stderr())
            .context("cannot start the thread that writes the log")?;
        // Fails only when there is a logger already, which then has been chosen by someone who knows better.
        if log::set_boxed_logger(Box::new(writer.log())).is_ok() {
            log::set_max_level(self.flags.log_level());
        }
        Ok(writer)
    }

    fn report(&self, host: &RunningHost) {
        for note in host.notes() {
            log::warn!("{note}");
        }
        for Loaded { module, info, compiled, .. } in host.loaded().iter().filter(|_| !self.flags.quiet) {
            let size = config::format_size(info.size);
            say(&format!("{}: {}, {size}, {compiled}", module.display(), info.kind));
        }
        if let Some(path) = host.control_path().filter(|_| !self.flags.quiet) {
            say(&format!("control socket {}", path.display()));
        }
        for address in host.control_addrs() {
            say(&format!("control on http://{address}"));
        }
        for place in host.listens_on() {
            say(&format!("listening on {place}"));
        }
    }
}

impl Flags {
    fn log_level(&self) -> log::LevelFilter {
        let default = if self.quiet { log::LevelFilter::Warn } else { log::LevelFilter::Info };
        // Only a level: filters by module are for those who know the modules.
        let from_environment = || env::var("RUST_LOG").ok()?.parse().ok();
        self.log_level.map(Into::into).or_else(from_environment).unwrap_or(default)
    }
}

/// How this process was started, but for what was said about its predecessor.
fn relaunch() -> io::Result<Relaunch> {
    let mut arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if let [.., flag, _] = &arguments[..]
        && flag == "--take-over"
    {
        arguments.truncate(arguments.len() - 2);
    }
    Ok(Relaunch { program: env::current_exe()?, arguments })
}

/// Reads the configuration again on a thread of its own, since that may compile for minutes: who stops us meanwhile is heard.
struct Reloads {
    wanted: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Reloads {
    fn new(operator: &Operator, notify: Arc<Notify>) -> io::Result<Self> {
        let (wanted, received) = mpsc::sync_channel(1);
        let operator = operator.clone();
        let thread = thread::Builder::new().name("astra-reload".to_owned()).stack_size(operator.worker_stack());
        let thread = thread.spawn(move || {
            while received.recv().is_ok() {
                notify.reloading();
                // What came of it is in the log.
                let _ = operator.reload();
                notify.ready();
            }
        })?;
        Ok(Self { wanted, thread })
    }

    /// The host has stopped, so what is under way has been given up.
    fn end(self) {
        drop(self.wanted);
        // It does nothing that panics; if it did, it has said so.
        let _ = self.thread.join();
    }
}

impl ServerFlags {
    fn apply(&self, config: &mut Config) -> Result<(), ValueError> {
        let server = &mut config.server;
        if self.tls_cert.len() != self.tls_key.len() {
            let (certs, keys) = (self.tls_cert.len(), self.tls_key.len());
            let found = format!("{keys} for {certs}");
            return Err(config::not_allowed("--tls-key", "given once for each --tls-cert, in the same order", &found));
        }
        for (cert, key) in self.tls_cert.iter().zip(&self.tls_key) {
            server.tls.push(CertificateFiles { cert: cert.clone(), key: key.clone() });
        }
        for text in &self.trusted_proxy {
            server.trusted_proxies.push(config::proxy("--trusted-proxy", text)?);
        }
        if let Some(text) = &self.max_body {
            server.max_body = config::size("--max-body", text, config::BODY)?;
        }
        if let Some(text) = &self.max_workers {
            server.max_workers = config::count("--max-workers", text, config::WORKERS)?;
        }
        if let Some(text) = &self.drain {
            server.drain = config::duration("--drain", text, config::DRAIN)?;
            config.handlers[0].drain = server.drain;
        }
        server.reset = self.reset.map(|reset| match reset {
            ResetFlag::Copy => Reset::Copy,
            ResetFlag::Scan => Reset::Scan,
        });
        if self.no_cache {
            server.cache = CacheMode::Off;
        }
        server.trust_precompiled = self.trust_precompiled;
        Ok(())
    }
}

impl HandlerFlags {
    fn apply(&self, handler: &mut HandlerConfig) -> Result<(), ValueError> {
        let time = |name, text: &str| config::duration(name, text, config::LIMIT);
        let from_host = |key: &str| env::var(key).ok();
        handler.watch = self.watch;

        let grants = &mut handler.grants;
        for path in &self.env_file {
            config::add_variables(&mut grants.env, config::env_file("--env-file", path, from_host)?);
        }
        for text in &self.env {
            config::add_variables(&mut grants.env, [config::variable("--env", text, from_host)?]);
        }
        for text in &self.dir {
            grants.dirs.push(config::dir("--dir", text)?);
        }
        for text in &self.outbound_private {
            let rule = config::outbound("--outbound-private", text)?;
            grants.outbound.push(OutboundRule { private: true, ..rule });
        }
        for text in &self.outbound {
            grants.outbound.push(config_file::outbound("--outbound", text, from_host)?);
        }
        // The first rule that names a destination counts, so those that allow more go first.
        grants.outbound.sort_by_key(|rule| !rule.private);
        for text in &self.tcp {
            grants.network.tcp.push(config::tcp("--tcp", text)?);
        }
        for text in &self.dns {
            grants.network.dns.push(config::dns("--dns", text)?);
        }
        for text in &self.config_var {
            config::add_variables(&mut grants.config, [config::variable("--config-var", text, from_host)?]);
        }
        for text in &self.arg {
            grants.args.push(config::argument("--arg", text)?);
        }

        let limits = &mut handler.limits;
        if let Some(text) = &self.deadline {
            limits.deadline = time("--deadline", text)?;
        }
        limits.stream_deadline =
            self.stream_deadline.as_deref().map(|text| time("--stream-deadline", text)).transpose()?;
        limits.cpu = self.cpu.as_deref().map(|text| time("--cpu", text)).transpose()?;
        if let Some(text) = &self.max_memory {
            limits.memory = config::size("--max-memory", text, config::MEMORY)?;
        }
        Ok(())
    }
}
