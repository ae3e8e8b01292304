//! Builds everything in the order it is needed, starts it, and shuts it down. Checks come first and listening last: an
//! address is bound only when there is a revision that can answer.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use astra_server::{Handle, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    certificates::Certificates,
    clock::Clock,
    compiler::Compiler,
    config::{CertificateFiles, ClientLimits, Config, HandlerConfig, ServerConfig, Text},
    control::{self, Control, Inherited, Reserved},
    dispatch::Dispatch,
    gate::{Gate, Probes},
    guest::{self, Compiled, DirGrant, Engine, EngineOptions, HostPattern, ModuleInfo, OutboundRule, TcpRule, inspect},
    handler::Handler,
    host_error::HostError,
    in_flight::InFlight,
    listeners::{self, Listeners},
    log_writer::Log,
    operator::{Attendant, Holdings, Operator, Parts, ReadConfig, Relaunch, steward},
    package::{self, Cancel},
    request_id::RequestIds,
    revision::Bell,
    router::Route,
    state_dir::StateDir,
    table::{Most, Table, Tables},
    take_over::{Estate, Places},
    unix_socket::SocketFiles,
    watcher::watcher,
};

/// Requests of a handler that may wait for a worker; beyond that, and after [`QUEUE_TIMEOUT`], the answer is 503.
const QUEUE: usize = 1024;

/// How long a request may wait for a worker.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Stacks for guests of WASI 0.3 beyond one for each worker.
const SPARE_STACKS: u32 = 16;

/// How long a host waits for the one before it to let go of the state directory.
const HANDOVER: Duration = Duration::from_secs(2);

/// How long the workers of requests that were cut at the end may take: longer than guests go on that have answered. One
/// that is stuck in a file call never ends.
const ABANDON_AFTER: Duration = guest::AFTERWARDS.saturating_mul(5);

/// Most connections a host holds, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 65_536;

/// Where hosts come from: [`Host::builder`].
#[derive(Debug)]
pub struct Host(());

impl Host {
    /// A host in the making; it needs a [`module`](HostBuilder::module).
    pub fn builder() -> HostBuilder {
        Self::from_config(Config::new(""))
    }

    /// A host in the making that does what `config` says.
    pub fn from_config(config: Config) -> HostBuilder {
        HostBuilder {
            config,
            sockets: Vec::new(),
            estate: Estate::default(),
            relaunch: None,
            log: None,
            file: None,
            read_config: None,
            stop: None,
            given_up: None,
        }
    }
}

/// A host in the making. What is not set here is set in its [`Config`].
#[must_use = "a builder does nothing until it is started"]
pub struct HostBuilder {
    config: Config,
    sockets: Vec<OwnedFd>,
    estate: Estate,
    relaunch: Option<Relaunch>,
    log: Option<Log>,
    file: Option<PathBuf>,
    read_config: Option<ReadConfig>,
    stop: Option<Box<dyn Fn() + Send + Sync>>,
    given_up: Option<Arc<Cancel>>,
}

/// The first handler is what the shortcuts are about.
impl HostBuilder {
    /// The `.wasm` file whose guests answer the requests.
    pub fn module(mut self, path: impl Into<PathBuf>) -> Self {
        let named = HandlerConfig::new(path);
        let handler = self.first();
        (handler.name, handler.module) = (named.name, named.module);
        self
    }

    /// Listens on one more address, `HOST:PORT`, or `https://HOST:PORT` to speak TLS there; `127.0.0.1:8080` when there is none. Port 0
    /// lets the system choose; `localhost` is both 127.0.0.1 and ::1. Or on a Unix socket, `unix:PATH`, of mode 0666: one that a dead
    /// process has left there is replaced, and it is removed at the end.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.config.server.listen.push(address.into());
        self
    }

    /// Takes over what a host before this one has passed on.
    pub(crate) fn inherit(mut self, estate: Estate) -> Self {
        self.estate = estate;
        self
    }

    /// How a new host is started that takes this one's place.
    pub(crate) fn relaunch(mut self, relaunch: Relaunch) -> Self {
        self.relaunch = Some(relaunch);
        self
    }

    /// What gives a start up, however long a module takes; whoever sets it ends the process then.
    pub(crate) fn given_up_by(mut self, cancel: Arc<Cancel>) -> Self {
        self.given_up = Some(cancel);
        self
    }

    /// One more certificate to show where TLS is spoken.
    pub fn certificate(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.config.server.tls.push(CertificateFiles { cert: cert.into(), key: key.into() });
        self
    }

    /// Listens on this stream socket, TCP or Unix, which listens already, and on no address that is configured.
    pub fn socket(mut self, socket: OwnedFd) -> Self {
        self.sockets.push(socket);
        self
    }

    /// Grants the guests an environment variable.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let value: String = value.into();
        crate::config::add_variables(&mut self.first().grants.env, [(key.into(), Text::from(value))]);
        self
    }

    /// Grants the guests a directory.
    pub fn dir(mut self, dir: DirGrant) -> Self {
        self.first().grants.dirs.push(dir);
        self
    }

    /// Lets the guests send HTTP requests there. The first rule that names a destination is the one that counts.
    pub fn outbound(mut self, rule: OutboundRule) -> Self {
        self.first().grants.outbound.push(rule);
        self
    }

    /// Lets the guests connect there with TCP, and look up the names that the rule names.
    pub fn tcp(mut self, rule: TcpRule) -> Self {
        self.first().grants.network.tcp.push(rule);
        self
    }

    /// Lets the guests look up these names.
    pub fn dns(mut self, names: HostPattern) -> Self {
        self.first().grants.network.dns.push(names);
        self
    }

    /// Tells the guests a value through `wasi:config`.
    pub fn config_var(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let value: String = value.into();
        crate::config::add_variables(&mut self.first().grants.config, [(key.into(), Text::from(value))]);
        self
    }

    /// Gives a CGI program one more argument, behind its name.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.first().grants.args.push(argument.into());
        self
    }

    /// How long a guest may take until the head of its response.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.first().limits.deadline = deadline;
        self
    }

    fn first(&mut self) -> &mut HandlerConfig {
        if self.config.handlers.is_empty() {
            self.config.handlers.push(HandlerConfig::new(""));
        }
        &mut self.config.handlers[0]
    }

    /// Logs there: what guests print, and a line for each request if the log has access lines. Without it guests print
    /// into the void. Records of the `log` crate go wherever the program sends them.
    pub fn log(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// Where the configuration is from, for [`Operator::status`].
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// How [`Operator::reload`] reads the configuration again; an error is said to whoever asked.
    pub fn reload_with(mut self, read: impl Fn() -> Result<Config, String> + Send + Sync + 'static) -> Self {
        self.read_config = Some(Box::new(read));
        self
    }

    /// What [`Operator::stop`] does: it should lead to [`RunningHost::shutdown`].
    pub fn on_stop(mut self, stop: impl Fn() + Send + Sync + 'static) -> Self {
        self.stop = Some(Box::new(stop));
        self
    }

    /// Everything else, before it is started.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Loads the modules, listens and serves, on threads of its own.
    ///
    /// Raises the process's soft limit on open files to the hard one.
    ///
    /// # Errors
    /// When a grant, a module, a route or an address cannot be used; nothing is left running then.
    pub fn start(self) -> Result<RunningHost, HostError> {
        let Self { mut config, sockets: passed, estate, relaunch, log, file, read_config, stop, given_up } = self;
        let Estate { sockets, files, places, control: control_socket, control_tcp, state: inherited_state } = estate;
        let changes = places.as_ref().map_or_else(Vec::new, |before| before.differences(&config.server));
        if !changes.is_empty() {
            return Err(HostError::Moved { changes });
        }
        let takes_over = places.is_some();
        let were_passed = places.map_or(!passed.is_empty(), |before| before.listen.is_none());
        let places = Places::of(&config.server, were_passed);
        if config.handlers.first().is_none_or(|first| first.module.as_os_str().is_empty()) {
            return Err(HostError::NoModule);
        }
        for handler in &mut config.handlers {
            handler.grants.check()?;
        }
        let router = Arc::new(config.router()?);
        let certificates = Certificates::new(&config.server.tls)?;
        let open_files = raise_open_files();
        warn_of_few_files(&config.server.clients, open_files);
        let inherited = Inherited { unix: control_socket, tcp: control_tcp };
        let control = Reserved::new(&config.server.control, inherited)?;

        let server = Server::default();
        let options = EngineOptions { executor: server.executor(), ..engine_options(&config) };
        let engine = Engine::new(&options)?;
        let ids = Arc::new(RequestIds::new());
        let gate = Gate {
            engine: engine.clone(),
            trust_precompiled: config.server.trust_precompiled,
            compiler: Compiler::new(&config.server.compile, config.server.cache),
            ids: Arc::clone(&ids),
            log: log.clone(),
            probes: Probes::default(),
        };
        let state = open_state(config.server.state.as_deref(), inherited_state)?;
        let uploads = match &state {
            Some(state) => state.uploads(),
            None if control.is_empty() => PathBuf::new(),
            None => control::uploads().map_err(HostError::Uploads)?,
        };
        let bell = Arc::new(Bell::default());
        let (mut handlers, mut loaded) = (Vec::new(), Vec::new());
        for handler in config.handlers {
            let (handler, module) = first_revision(handler, &gate, state.as_ref(), &bell, given_up.as_deref())?;
            let (info, compiled) = (handler.main.module.info().clone(), handler.main.module.compiled());
            let routes = handler.config.routes.clone();
            loaded.push(Loaded { name: handler.name.to_string(), routes, module, info, compiled });
            handlers.push(handler);
        }

        if let Some(state) = &state {
            let names: Vec<&str> = handlers.iter().map(|handler| &*handler.name).collect();
            state.retain(&names).map_err(|source| HostError::State { path: state.path().to_owned(), source })?;
        }
        let entries = handlers.iter().map(Handler::entry).collect();
        let table = Table::new(Arc::clone(&router), entries);
        let most = Most { in_flight: config.server.max_workers as usize, queued: QUEUE };
        let tables = Arc::new(Tables::new(table, most));
        let in_flight = Arc::<InFlight>::default();
        if were_passed {
            listeners::check_inherited(&config.server, &sockets)?;
        }
        let listeners = listeners::open(server, &config.server, &certificates, (sockets, files), passed)?;
        let Listeners { server, urls: listen, files } = listeners;
        let ready = Arc::new(AtomicBool::new(true));
        let operator = Operator::new(Parts {
            gate,
            tables: Arc::clone(&tables),
            in_flight: Arc::clone(&in_flight),
            bell,
            router,
            handlers,
            state,
            listen: listen.clone(),
            config: file,
            read_config,
            stop,
            ready: Arc::clone(&ready),
            relaunch,
            builds: given_up.unwrap_or_default(),
            takes_over,
            server: config.server.clone(),
        });
        let trusted_proxies = config.server.trusted_proxies.clone();
        let health = config.server.health.clone();
        let dispatch = Dispatch { tables, in_flight, ids, trusted_proxies, log, health, ready };
        let server = serve(server, dispatch, &config.server, &engine, open_files)?;
        let steward = steward(&operator).map_err(HostError::Serve)?;
        let watcher = watcher(&operator, certificates).map_err(HostError::Serve)?;
        let control = control.open(&operator, &engine, config.server.control.max_module, &uploads);
        let (control, share) = control.map_err(HostError::Serve)?;
        operator.hold(Holdings {
            sockets: server.sockets(),
            counters: server.counters(),
            files: files.share(),
            places,
            control: share,
        });
        Ok(RunningHost { files, server, watcher, steward, control, operator, loaded, engine, listen })
    }
}

/// The directory that outlives us, unless another host has it: two that serve the same thing do not share what they were given.
fn open_state(path: Option<&Path>, inherited: Option<(PathBuf, OwnedFd)>) -> Result<Option<StateDir>, HostError> {
    let Some(path) = path else { return Ok(None) };
    if let Some((_, lock)) = inherited.filter(|(theirs, _)| theirs == path) {
        let state = StateDir::inherit(path, lock);
        return state.map(Some).map_err(|source| HostError::State { path: path.to_owned(), source });
    }
    // One that is just ending lets go of it last.
    let until = Instant::now() + HANDOVER;
    let opened = loop {
        match StateDir::open(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                thread::sleep(HANDOVER / 100);
            }
            opened => break opened,
        }
    };
    match opened {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            log::warn!("swaps of this host will not outlive a restart: {error}");
            Ok(None)
        }
        Err(source) => Err(HostError::State { path: path.to_owned(), source }),
    }
}

/// A handler with the module that it was given last, or the configured one if that has changed since. And the module's file.
fn first_revision(
    config: HandlerConfig,
    gate: &Gate,
    state: Option<&StateDir>,
    bell: &Arc<Bell>,
    given_up: Option<&Cancel>,
) -> Result<(Handler, PathBuf), HostError> {
    let path = match given_up {
        Some(cancel) => package::module_until(&config.module, cancel),
        None => package::module(&config.module),
    };
    if let Some(state) = state
        && let Some(recorded) = state.recorded(&config.name)
    {
        // A file that is gone, or that cannot be built, cannot be newer.
        let there = path.as_ref().ok().and_then(|path| inspect(path).ok());
        let configured = there.map_or_else(|| recorded.base_sha256.clone(), |info| info.digest);
        if configured == recorded.base_sha256 {
            match gate.load_first(&recorded.module, given_up) {
                Ok(module) => {
                    log::warn!(
                        "handler `{}`: serving `{}`, swapped in at {}, not `{}`",
                        config.name,
                        recorded.source,
                        recorded.time,
                        config.module.display()
                    );
                    let handler = Handler::new(config, module, recorded.source, configured, bell);
                    return Ok((handler, recorded.module));
                }
                Err(HostError::Stopped) => return Err(HostError::Stopped),
                Err(error) => log::error!("handler `{}`: {error}; the configured module is served", config.name),
            }
        } else if let Err(error) = state.forget(&config.name) {
            log::error!("handler `{}`: what was swapped in cannot be forgotten: {error}", config.name);
        }
    }
    let path = path?;
    let module = gate.load_first(&path, given_up)?;
    let (source, configured) = (config.module.display().to_string(), module.info().digest.clone());
    Ok((Handler::new(config, module, source, configured, bell), path))
}

fn serve(
    server: Server,
    dispatch: Dispatch,
    config: &ServerConfig,
    engine: &Engine,
    open_files: Option<u64>,
) -> Result<Handle, HostError> {
    let proxies = config.proxy_protocol.clone();
    let server = bounded(server, &config.clients, open_files)
        .proxy_protocol(move |peer| proxies.iter().any(|network| network.contains(peer)))
        .max_workers(config.max_workers as usize)
        .queue(usize::MAX, QUEUE_TIMEOUT) // each handler's is bounded
        .max_body(config.max_body)
        .body_read_timeout(config.body_timeout)
        .worker_stack(engine.worker_stack())
        .abandon_after(ABANDON_AFTER)
        .around_worker({
            let runtime = engine.runtime().clone();
            move |work| {
                let _entered = runtime.enter();
                work();
            }
        })
        .on_tick({
            let (engine, clock) = (engine.clone(), Clock::new());
            move || {
                engine.tick();
                clock.look();
            }
        });
    server.start(dispatch).map_err(HostError::Serve)
}

/// Says so if connections can never be as many as they may.
fn warn_of_few_files(clients: &ClientLimits, open_files: Option<u64>) {
    if let (Some(connections), Some(files)) = (clients.max_connections, open_files)
        && u64::from(connections) > files
    {
        log::warn!(
            "`max_connections` is {connections}, and this process may have {files} files open: beyond that, connections wait; raise `ulimit -n` (`LimitNOFILE=`)"
        );
    }
}

/// How long a body may bring less than `body_rate` while its guest waits for it.
const BODY_RATE_GRACE: Duration = Duration::from_secs(10);

/// What clients may do.
fn bounded(server: Server, clients: &ClientLimits, open_files: Option<u64>) -> Server {
    let count = |most: u32| most as usize;
    let max_header_size = u32::try_from(clients.max_header_size).unwrap_or(u32::MAX);
    let mut server = server
        .header_read_timeout(clients.header_timeout)
        .tls_handshake_timeout(clients.tls_handshake_timeout)
        .idle_timeout(clients.idle_timeout)
        .write_timeout(clients.write_timeout)
        .body_rate(u32::try_from(clients.body_rate).unwrap_or(u32::MAX), BODY_RATE_GRACE)
        .http1_max_header_size(count(max_header_size))
        .http2_max_header_list_size(max_header_size)
        .http1_max_headers(count(clients.max_headers))
        .http2_max_headers(count(clients.max_headers))
        .max_connections(clients.max_connections.map_or_else(|| max_connections(open_files), count))
        .http2_max_concurrent_streams(clients.http2_max_streams)
        .http2_max_control_frames(clients.http2_max_control_frames);
    if let Some(most) = clients.max_connections_per_peer {
        server = server.max_connections_per_peer(count(most));
    }
    if let Some(most) = clients.max_requests_per_connection {
        server = server.max_requests_per_connection(most.into());
    }
    if let Some(age) = clients.max_connection_age {
        server = server.max_connection_age(age);
    }
    server
}

/// A host that serves. Dropping it stops it at once, cutting what runs; [`shutdown`](Self::shutdown) is kinder.
#[must_use = "a host that is dropped stops serving"]
pub struct RunningHost {
    // Dropped in this order: files of sockets before those close, the workers that run guests before the engine they run in.
    files: SocketFiles,
    server: Handle,
    watcher: Attendant,
    steward: Attendant,
    control: Control,
    operator: Operator,
    loaded: Vec<Loaded>,
    engine: Engine,
    listen: Vec<String>,
}

/// What a handler was started with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The handler.
    pub name: String,
    /// Which requests are its own.
    pub routes: Vec<Route>,
    /// The file.
    pub module: PathBuf,
    /// What is in it.
    pub info: ModuleInfo,
    /// Where its machine code came from.
    pub compiled: Compiled,
}

impl RunningHost {
    /// The addresses it really listens on.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.server.local_addrs()
    }

    /// What it listens on, as URLs: `http://127.0.0.1:8080`, `https://` where TLS is spoken, `unix:/run/app.sock`.
    #[must_use]
    pub fn listens_on(&self) -> &[String] {
        &self.listen
    }

    /// The control socket's path, if there is one.
    #[must_use]
    pub fn control_path(&self) -> Option<&Path> {
        self.control.path()
    }

    /// Where it listens for operators on TCP.
    #[must_use]
    pub fn control_addrs(&self) -> &[SocketAddr] {
        self.control.local_addrs()
    }

    /// What it was started with, in the order of the configuration.
    #[must_use]
    pub fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    /// What can be done to it while it serves.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// What the operator should know about how guests are run here: what is not as it was asked for, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        self.engine.notes()
    }

    /// Stops accepting, lets requests finish for at most `drain`, cuts the rest and joins all threads, but for those that are stuck in a
    /// file call for five more seconds. None when nothing was cut; otherwise how many of the requests had not ended.
    pub fn shutdown(self, drain: Duration) -> Option<usize> {
        self.operator.begin_stop();
        drop(self.files);
        let cut = self.server.shutdown(drain);
        drop(self.watcher);
        drop(self.steward);
        self.control.shutdown();
        cut
    }
}

/// The sandbox that a configuration asks for.
pub(crate) fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        stacks: config.server.max_workers.saturating_add(SPARE_STACKS),
        max_memory: config.handlers.iter().map(|handler| handler.limits.memory).max().unwrap_or_default(),
        memory_budget: config.server.memory_budget,
        reset: config.server.reset,
        cache: config.server.cache,
        ..EngineOptions::default()
    }
}

/// Raises the soft limit on open files to the hard one and returns what it is then.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // macOS says "unlimited" and then refuses it: what we have is enough for development.
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// A quarter of the open files is left: most of it for guests (`guest/descriptors.rs`), the rest for the host itself.
fn max_connections(open_files: Option<u64>) -> usize {
    open_files.map_or(MAX_CONNECTIONS, |files| (files / 4 * 3).clamp(16, MAX_CONNECTIONS as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_guests() {
        assert_eq!(max_connections(Some(1024)), 768);
        assert_eq!(max_connections(Some(1 << 20)), MAX_CONNECTIONS);
        assert_eq!(max_connections(None), MAX_CONNECTIONS);
    }

    #[test]
    fn a_host_without_a_module_says_so() {
        let error = Host::builder().start().err().expect("has no module");
        assert!(matches!(error, HostError::NoModule));
    }
}
