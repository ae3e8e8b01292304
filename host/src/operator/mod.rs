//! What can be done to a running host: look at it, swap modules, roll back, cut requests, reload, stop.
//!
//! Everything that changes what is served goes through the one book, under its lock, and becomes visible to requests by one
//! exchange of the table. Loading modules takes long and happens outside of the lock, one at a time for each handler. `swaps.rs` has
//! what is done to one handler, `reload.rs` what is done to all, `steward.rs` what happens afterwards, `upgrade.rs` what is done to the host.

mod attendant;
mod book;
mod reload;
mod steward;
mod swaps;
mod upgrade;

pub use self::upgrade::UpgradeOptions;
pub(crate) use self::{
    attendant::Attendant,
    steward::steward,
    upgrade::{Holdings, Relaunch},
};

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use astra_server::Counters;

use self::{book::Book, swaps::Origin, upgrade::Upgrading};
use crate::{
    config::{Config, ServerConfig, Share},
    events::{Events, Urgency, now},
    farewell::Farewell,
    gate::Gate,
    handler::Handler,
    in_flight::InFlight,
    operator_error::OperatorError,
    package::Cancel,
    receipt::Receipt,
    revision::Bell,
    router::Router,
    state_dir::StateDir,
    status::{RequestStatus, Status, Traffic},
    table::Tables,
};

/// What can be done to a running host. Cheap to clone; any thread may use it, and calls may take long (compiling, draining).
#[derive(Clone)]
pub struct Operator(Arc<Inner>);

/// How to swap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwapOptions {
    /// The share of the requests that the new revision gets; all, and at once, unless set.
    pub canary: Option<Share>,
    /// Whether to refuse a module that imports what the one before did not.
    pub no_new_imports: bool,
    /// Whether a restart serves the configured module again.
    pub until_restart: bool,
}

/// Reads the configuration again.
pub(crate) type ReadConfig = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// What an operator works with.
pub(crate) struct Parts {
    pub(crate) gate: Gate,
    pub(crate) tables: Arc<Tables>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) server: ServerConfig,
    pub(crate) router: Arc<Router>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) state: Option<StateDir>,
    pub(crate) listen: Vec<String>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) read_config: Option<ReadConfig>,
    pub(crate) stop: Option<Box<dyn Fn() + Send + Sync>>,
    pub(crate) ready: Arc<AtomicBool>,
    pub(crate) relaunch: Option<Relaunch>,
    /// Gives up what is built.
    pub(crate) builds: Arc<Cancel>,
    /// Whether another host serves until [`Operator::settle`].
    pub(crate) takes_over: bool,
}

struct Inner {
    book: Mutex<Book>,
    /// See [`Inner::change`].
    changes: Mutex<bool>,
    may_change: Condvar,
    events: Events,
    started: String,
    gate: Gate,
    tables: Arc<Tables>,
    in_flight: Arc<InFlight>,
    bell: Arc<Bell>,
    /// Rung when what is to be watched may have changed.
    watch_bell: Bell,
    builds: Arc<Cancel>,
    server: ServerConfig,
    state: Option<StateDir>,
    listen: Vec<String>,
    config: Option<PathBuf>,
    read_config: Option<ReadConfig>,
    stop: Option<Box<dyn Fn() + Send + Sync>>,
    /// Whether requests are welcome. Written by [`Operator::begin_stop`], read by whoever asks.
    ready: Arc<AtomicBool>,
    relaunch: Option<Relaunch>,
    holdings: OnceLock<Holdings>,
    /// The line to a new host that is not ready yet, by which it can be given up.
    offer: Mutex<Option<UnixStream>>,
    complaint: Mutex<Option<String>>,
    /// What was started to take this process's place, until it has, or has failed.
    upgrading: Mutex<Option<Upgrading>>,
    successor: OnceLock<u32>,
}

/// Held by whoever changes what is served.
type Change<'a> = MutexGuard<'a, bool>;

impl Operator {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            gate,
            tables,
            in_flight,
            bell,
            server,
            router,
            handlers,
            state,
            listen,
            config,
            read_config,
            stop,
            ready,
            relaunch,
            builds,
            takes_over,
        } = parts;
        let book = Mutex::new(Book::new(handlers, router));
        let (events, started) = (Events::default(), now());
        Self(Arc::new(Inner {
            book,
            changes: Mutex::new(!takes_over),
            may_change: Condvar::new(),
            events,
            started,
            gate,
            tables,
            in_flight,
            bell,
            watch_bell: Bell::default(),
            builds,
            server,
            state,
            listen,
            config,
            read_config,
            stop,
            ready,
            relaunch,
            holdings: OnceLock::new(),
            offer: Mutex::default(),
            complaint: Mutex::default(),
            upgrading: Mutex::default(),
            successor: OnceLock::new(),
        }))
    }

    /// The whole host.
    pub fn status(&self) -> Status {
        let book = self.0.lock();
        let counters = self.0.holdings.get().map(|holdings| &holdings.counters);
        let counts = counters.and_then(Counters::counts);
        let handlers = book.handlers.iter().map(|handler| {
            let queued = counters.map_or(0, |counters| counters.queued(handler.lane));
            handler.status(&book.farewells, self.differs(handler), queued as u64)
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.0.started.clone(),
            listen: self.0.listen.clone(),
            config: self.0.config.as_ref().map(|path| path.display().to_string()),
            traffic: counts.as_ref().map(Traffic::from).unwrap_or_default(),
            handlers: handlers.collect(),
        }
    }

    /// Why a start from the configuration alone would serve something else.
    fn differs(&self, handler: &Handler) -> Option<String> {
        if handler.main.sha256() == handler.configured {
            return None;
        }
        let from = self.0.config.as_ref().unwrap_or(&handler.config.module);
        Some(format!("differs from {}", from.file_name().unwrap_or_default().display()))
    }

    /// Every request that runs or waits, the oldest first.
    pub fn requests(&self) -> Vec<RequestStatus> {
        self.0.in_flight.list()
    }

    /// Cuts the request with this id.
    ///
    /// # Errors
    /// None has it.
    pub fn kill(&self, id: &str) -> Result<RequestStatus, OperatorError> {
        let request = self.0.in_flight.kill(id).ok_or_else(|| OperatorError::UnknownRequest { id: id.to_owned() })?;
        let text = format!("request {id} was cut by the operator after {:.0} ms", request.age_ms);
        self.0.events.tell(Urgency::Normal, "kill", Some(&request.handler), text, None);
        Ok(request)
    }

    /// Publishes the module in the file at `module` as a new revision of `handler`; `source` is what status calls it. Returns when it is
    /// live.
    ///
    /// # Errors
    /// It was not published; what served before serves on.
    pub fn swap(
        &self,
        handler: &str,
        module: &Path,
        source: &str,
        options: &SwapOptions,
    ) -> Result<Receipt, OperatorError> {
        let swapped = self.try_swap(handler, &Origin::Operator { module, source }, options);
        let swapped = swapped.map_err(|error| match error {
            OperatorError::Load(error) => OperatorError::Load(error.called(source)),
            error => error,
        });
        self.told(handler, swapped)
    }

    /// Publishes the configured module of a handler, which was saved so long ago, if it is another than when it was last looked at. Tells
    /// of success only: whoever watches knows whether a failure is one.
    ///
    /// # Errors
    /// It was not published; what served before serves on.
    pub(crate) fn swap_changed(&self, handler: &str, age: impl Fn() -> Duration) -> Result<(), OperatorError> {
        self.try_swap(handler, &Origin::Configured { age: &age }, &SwapOptions::default())?;
        self.collect();
        Ok(())
    }

    /// Goes back to revision `to`, or to the one that was live before and was not itself rolled back from. Returns when it is live.
    ///
    /// # Errors
    /// It is not kept.
    pub fn rollback(&self, handler: &str, to: Option<u32>) -> Result<Receipt, OperatorError> {
        let done = self.try_rollback(&self.0.change(), handler, to, None);
        self.told(handler, done)
    }

    /// Gives the canary all requests. Returns when it has them.
    ///
    /// # Errors
    /// There is none.
    pub fn promote(&self, handler: &str) -> Result<Receipt, OperatorError> {
        self.told(handler, self.try_promote(handler))
    }

    /// Takes the canary back. Returns when it gets no requests any more.
    ///
    /// # Errors
    /// There is none.
    pub fn abort(&self, handler: &str) -> Result<Receipt, OperatorError> {
        let done = self.try_abort(&self.0.change(), handler, None);
        self.told(handler, done)
    }

    /// Waits until the revision that was replaced has drained, and returns the complete receipt. On a worker of a server's, it waits no
    /// longer than for its client.
    pub fn wait_for_drain(&self, receipt: Receipt) -> Receipt {
        let found = self.0.lock().find(&receipt);
        match found {
            Ok(complete) => complete,
            Err(report) => report.and_then(|report| report.wait()).unwrap_or(receipt),
        }
    }

    /// Reads the configuration again and does what differs, all or nothing.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        let events = &self.0.events;
        match self.try_reload() {
            Ok(receipts) => {
                self.collect();
                let text = match receipts.len() {
                    0 => "nothing differs".to_owned(),
                    count => format!("{count} done"),
                };
                events.tell(Urgency::Normal, "reload", None, text, None);
                Ok(receipts)
            }
            Err(error) => {
                let error = self.unless_replaced(error);
                events.tell(Urgency::Loud, "failed", None, format!("reload: {}", chain(&error)), None);
                Err(error)
            }
        }
    }

    /// Stops the host as SIGTERM does.
    pub fn stop(&self) {
        if let Some(stop) = &self.0.stop {
            stop();
        }
    }

    /// Whether it serves and is not about to stop.
    pub fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::SeqCst)
    }

    /// How long requests may take to finish when the host stops.
    pub fn drain(&self) -> Duration {
        self.0.server.drain
    }

    /// What happens to handlers.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// Tells why something was not done.
    pub(crate) fn tell_failed(&self, name: &str, error: &OperatorError) {
        self.0.events.tell(Urgency::Loud, "failed", Some(name), chain(error), None);
    }

    /// Whatever failed, if there is another host now it failed because of that, or has to be said to that one.
    fn unless_replaced(&self, error: OperatorError) -> OperatorError {
        self.successor().map_or(error, |pid| OperatorError::Replaced { pid })
    }

    /// Tells why something was not done; clears up after what was.
    fn told(&self, name: &str, done: Result<Receipt, OperatorError>) -> Result<Receipt, OperatorError> {
        self.collect();
        let done = done.map_err(|error| self.unless_replaced(error));
        if let Err(error) = &done {
            self.tell_failed(name, error);
        }
        done
    }
}

/// For the threads that see to swaps.
impl Operator {
    /// The handlers whose modules are watched, and where those are.
    pub(crate) fn watched(&self) -> Vec<(Arc<str>, PathBuf)> {
        let book = self.0.lock();
        let watched = book.handlers.iter().filter(|handler| handler.config.watch);
        watched.map(|handler| (Arc::clone(&handler.name), handler.config.module.clone())).collect()
    }

    /// From here on nothing is swapped, and what is being built for that is given up.
    pub(crate) fn begin_stop(&self) {
        self.0.ready.store(false, Ordering::SeqCst);
        {
            // Whoever is recording a swap publishes it, or finds that it is too late before that.
            let change = self.0.change_at_last();
            self.0.lock().is_stopping = true;
            self.0.let_change(change);
        }
        self.0.builds.cancel();
        self.0.gate.stop();
        self.0.watch_bell.ring();
        self.0.bell.ring();
    }

    /// Nobody will look after anything any more: tells all who wait.
    pub(crate) fn end(&self) {
        let farewells = std::mem::take(&mut self.0.lock().farewells);
        farewells.into_iter().for_each(Farewell::end);
        self.0.events.end();
    }

    /// The native stack that a thread needs to load modules.
    pub(crate) fn worker_stack(&self) -> usize {
        self.0.gate.engine.worker_stack()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.0.lock().is_stopping
    }

    pub(crate) fn watch_bell(&self) -> &Bell {
        &self.0.watch_bell
    }
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
