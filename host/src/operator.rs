//! What can be done to a running host: look at it, swap modules, roll back, cut requests, reload, stop.
//!
//! Everything that changes what is served goes through the one [`Book`], under its lock, and becomes visible to requests by one
//! exchange of the [`Table`]. Loading modules takes long and happens outside of the lock, one at a time for each handler.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, HandlerConfig, NewImports, ServerConfig, Share},
    config_file::restart_keys,
    events::{Events, Urgency, now},
    farewell::{Farewell, Report},
    gate::{Admitted, Gate},
    guard::Verdict,
    guest::{LoadedModule, inspect},
    handler::Handler,
    host::HostError,
    in_flight::InFlight,
    operator_error::OperatorError,
    package::{self, Cancel},
    receipt::{Action, Receipt, milliseconds},
    revision::{Bell, Revision},
    router::Router,
    state_dir::{Recording, StateDir},
    status::{RequestStatus, Status},
    table::{Table, Tables},
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
    /// Whether to return when the new revision is live, rather than when the one before has drained.
    pub no_wait: bool,
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
}

struct Inner {
    book: Mutex<Book>,
    events: Events,
    started: String,
    gate: Gate,
    tables: Arc<Tables>,
    in_flight: Arc<InFlight>,
    bell: Arc<Bell>,
    /// Rung when what is to be watched may have changed.
    watch_bell: Bell,
    builds: Cancel,
    server: ServerConfig,
    state: Option<StateDir>,
    listen: Vec<String>,
    config: Option<PathBuf>,
    read_config: Option<ReadConfig>,
    stop: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Who serves what, and what is left to do after swaps.
struct Book {
    /// In the order of the configuration, which is that of the router's indexes.
    handlers: Vec<Handler>,
    router: Arc<Router>,
    farewells: Vec<Farewell>,
    is_stopping: bool,
}

impl Book {
    fn table(&self) -> Table {
        Table { router: Arc::clone(&self.router), entries: self.handlers.iter().map(Handler::entry).collect() }
    }

    fn handler(&mut self, name: &str) -> Result<&mut Handler, OperatorError> {
        if self.is_stopping {
            return Err(OperatorError::Stopping);
        }
        match self.handlers.iter().position(|handler| &*handler.name == name) {
            Some(index) => Ok(&mut self.handlers[index]),
            None => {
                let known: Vec<_> = self.handlers.iter().map(|handler| format!("`{}`", handler.name)).collect();
                Err(OperatorError::UnknownHandler { name: name.to_owned(), known: known.join(", ") })
            }
        }
    }

    /// A revision is not kept any more: it is freed now, or when the farewell that waits for its requests is over.
    fn evict(&mut self, farewell: &mut Farewell, revisions: Vec<Arc<Revision>>) {
        for revision in revisions {
            match self.farewells.iter_mut().find(|other| other.drains(&revision)) {
                Some(other) => other.part(&revision, false),
                None => farewell.evict(&revision),
            }
        }
    }
}

/// While it lives, a module is being loaded for the handler and no other may.
struct Busy<'a> {
    operator: &'a Inner,
    name: String,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(handler) = self.operator.lock().handlers.iter_mut().find(|handler| *handler.name == *self.name) {
            handler.is_busy = false;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a handler for a new revision.
    fn claim(&self, name: &str) -> Result<Busy<'_>, OperatorError> {
        let mut book = self.lock();
        book.handler(name)?;
        let Book { handlers, farewells, .. } = &mut *book;
        if let Some(handler) = handlers.iter_mut().find(|handler| &*handler.name == name) {
            handler.check_free(farewells)?;
            handler.is_busy = true;
        }
        Ok(Busy { operator: self, name: name.to_owned() })
    }

    /// Sees to it that a revision which the table does not have any more drains, and that those which are kept no longer are freed (it may
    /// be one of them).
    fn bid_farewell(
        &self,
        book: &mut Book,
        receipt: Receipt,
        replaced: Arc<Revision>,
        evicted: Vec<Arc<Revision>>,
        drain: Duration,
    ) -> Arc<Report> {
        let is_kept = !evicted.iter().any(|evicted| Arc::ptr_eq(evicted, &replaced));
        let others = evicted.into_iter().filter(|evicted| !Arc::ptr_eq(evicted, &replaced)).collect();
        let mut farewell = Farewell::new(receipt, replaced, is_kept, drain);
        book.evict(&mut farewell, others);
        let report = farewell.report();
        book.farewells.push(farewell);
        self.bell.ring();
        report
    }
}

impl Operator {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { gate, tables, in_flight, bell, server, router, handlers, state, listen, config, read_config, stop } =
            parts;
        let book = Mutex::new(Book { handlers, router, farewells: Vec::new(), is_stopping: false });
        let (events, started) = (Events::default(), now());
        Self(Arc::new(Inner {
            book,
            events,
            started,
            gate,
            tables,
            in_flight,
            bell,
            watch_bell: Bell::default(),
            builds: Cancel::default(),
            server,
            state,
            listen,
            config,
            read_config,
            stop,
        }))
    }

    /// The whole host.
    pub fn status(&self) -> Status {
        let book = self.0.lock();
        let handlers = book.handlers.iter().map(|handler| handler.status(&book.farewells, self.differs(handler)));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.0.started.clone(),
            listen: self.0.listen.clone(),
            config: self.0.config.as_ref().map(|path| path.display().to_string()),
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

    /// Publishes the module in the file at `module` as a new revision of `handler`; `source` is what status calls it.
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
        self.told(handler, swapped, options.no_wait)
    }

    /// Publishes the configured module of a handler, which was saved so long ago, if it is another than when it was last looked at. Tells
    /// of success only: whoever watches knows whether a failure is one.
    ///
    /// # Errors
    /// It was not published; what served before serves on.
    pub(crate) fn swap_changed(&self, handler: &str, age: impl Fn() -> Duration) -> Result<(), OperatorError> {
        let done = self.try_swap(handler, &Origin::Configured { age: &age }, &SwapOptions::default())?;
        if done.receipt.action != Action::Unchanged {
            self.told(handler, Ok(done), true)?;
        }
        Ok(())
    }

    fn try_swap(&self, name: &str, origin: &Origin<'_>, options: &SwapOptions) -> Result<Done, OperatorError> {
        let inner = &*self.0;
        let _claim = inner.claim(name)?;
        let (config, before, configured, router) = {
            let mut book = inner.lock();
            let router = Arc::clone(&book.router);
            let handler = book.handler(name)?;
            (handler.config.clone(), Arc::clone(&handler.main), handler.configured.clone(), router)
        };
        let (path, source) = match origin {
            Origin::Operator { module, source } => (*module, (*source).to_owned()),
            Origin::Configured { .. } => (&*config.module, config.module.display().to_string()),
        };
        let path = package::module_until(path, &inner.builds)?;
        let sha256 = inspect(&path)?.digest;
        let is_known = match origin {
            Origin::Operator { .. } => before.sha256() == sha256 && before.has_settings(&config),
            // What was swapped in since stays, if only the time of the file is new.
            Origin::Configured { .. } => configured == sha256,
        };
        if is_known {
            return Ok(Done { receipt: self.receipt(Action::Unchanged, Some(&before), &before), report: None });
        }
        let loaded = inner.lock().handler(name)?.loaded(&sha256);
        let Admitted { module, code, probed } = inner.gate.admit(&path, loaded, &config, &router)?;
        let new_imports = new_imports(&module, &before.module);
        let refuses = options.no_new_imports || config.new_imports == NewImports::Refuse;
        if refuses && !new_imports.is_empty() {
            return Err(OperatorError::NewImports { from: before.number, imports: new_imports });
        }
        let outlives_restart = match origin {
            Origin::Operator { .. } if !options.until_restart => {
                if let Some(state) = &inner.state {
                    state.keep(&sha256, &path).map_err(OperatorError::State)?;
                }
                // A canary is on trial: a restart serves what is live.
                options.canary.is_none()
                    && self.record(name, &Recording { sha256: &sha256, configured: &configured, source: &source })?
            }
            Origin::Operator { .. } => false,
            // The file is what a restart finds.
            Origin::Configured { .. } => {
                self.record(name, &Recording { sha256: &sha256, configured: &sha256, source: &source })?
            }
        };

        let mut book = inner.lock();
        let handler = book.handler(name)?;
        let revision = handler.make(module, source);
        let action = if options.canary.is_some() { Action::Canary } else { Action::Swap };
        let mut receipt = Receipt {
            code,
            probe: probed,
            new_imports,
            outlives_restart,
            share: options.canary.map(|share| share.to_string()),
            ..self.receipt(action, Some(&handler.main), &revision)
        };
        if let Origin::Configured { age } = origin {
            handler.configured = sha256;
            receipt.saved_ms = Some(milliseconds(age()));
        }
        let report = match options.canary {
            Some(share) => {
                handler.put_canary(revision, share);
                handler.last = Some(receipt.clone());
                inner.tables.publish(book.table());
                None
            }
            None => Some(self.go_live(&mut book, name, &revision, receipt.clone())?),
        };
        Ok(Done { receipt, report })
    }

    /// Makes a revision that has passed the gate the live one.
    fn go_live(
        &self,
        book: &mut Book,
        name: &str,
        revision: &Arc<Revision>,
        receipt: Receipt,
    ) -> Result<Arc<Report>, OperatorError> {
        let handler = book.handler(name)?;
        let drain = handler.config.drain;
        let before = handler.put(Arc::clone(revision));
        handler.last = Some(receipt.clone());
        let evicted = handler.keep(Arc::clone(&before));
        for farewell in &mut book.farewells {
            farewell.part(revision, true);
        }
        self.0.tables.publish(book.table());
        Ok(self.0.bid_farewell(book, receipt, before, evicted, drain))
    }

    /// Records what a handler is about to serve, so that a restart does too. Whether it will.
    ///
    /// # Errors
    /// The disk fails. What was recorded before still is.
    fn record(&self, name: &str, revision: &Recording<'_>) -> Result<bool, OperatorError> {
        let Some(state) = &self.0.state else { return Ok(false) };
        let Recording { sha256, configured, .. } = revision;
        let recorded = if sha256 == configured {
            state.forget(name).map(|()| true)
        } else if state.keeps(sha256) {
            state.record(name, revision).map(|()| true)
        } else {
            // Its file has been replaced: there is nothing that a restart could serve.
            state.forget(name).map(|()| false)
        };
        recorded.map_err(OperatorError::State)
    }

    /// Removes the copies of modules that nobody can go back to.
    fn collect(&self) {
        let Some(state) = &self.0.state else { return };
        let digests: Vec<String> = {
            let book = self.0.lock();
            book.handlers.iter().flat_map(|handler| handler.digests().map(str::to_owned)).collect()
        };
        if let Err(error) = state.collect(&digests.iter().map(String::as_str).collect::<Vec<_>>()) {
            log::warn!("modules that are not needed any more cannot be removed: {error}");
        }
    }

    /// Goes back to revision `to`, or to the newest of those before the live one that is kept.
    ///
    /// # Errors
    /// It is not kept.
    pub fn rollback(&self, handler: &str, to: Option<u32>, no_wait: bool) -> Result<Receipt, OperatorError> {
        self.told(handler, self.try_rollback(handler, to), no_wait)
    }

    fn try_rollback(&self, name: &str, to: Option<u32>) -> Result<Done, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        handler.check_no_canary()?;
        let revision = handler.earlier(to)?;
        let outlives_restart = self.record(name, &handler.recording(&revision))?;
        let receipt = self.receipt(Action::Rollback, Some(&handler.main), &revision);
        let receipt = Receipt { outlives_restart, ..receipt };
        let report = self.go_live(&mut book, name, &revision, receipt.clone())?;
        Ok(Done { receipt, report: Some(report) })
    }

    /// Gives the canary all requests.
    ///
    /// # Errors
    /// There is none.
    pub fn promote(&self, handler: &str, no_wait: bool) -> Result<Receipt, OperatorError> {
        self.told(handler, self.try_promote(handler), no_wait)
    }

    fn try_promote(&self, name: &str) -> Result<Done, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        let canary = handler.canary()?;
        let outlives_restart = self.record(name, &handler.recording(&canary))?;
        let revision = handler.take_canary()?;
        let receipt = self.receipt(Action::Promote, Some(&handler.main), &revision);
        let receipt = Receipt { outlives_restart, ..receipt };
        let report = self.go_live(&mut book, name, &revision, receipt.clone())?;
        Ok(Done { receipt, report: Some(report) })
    }

    /// Takes the canary back.
    ///
    /// # Errors
    /// There is none.
    pub fn abort(&self, handler: &str, no_wait: bool) -> Result<Receipt, OperatorError> {
        self.told(handler, self.try_abort(handler), no_wait)
    }

    fn try_abort(&self, name: &str) -> Result<Done, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        let revision = handler.take_canary()?;
        revision.replaced(true);
        let receipt = self.receipt(Action::Abort, Some(&revision), &handler.main);
        handler.last = Some(receipt.clone());
        let drain = handler.config.drain;
        self.0.tables.publish(book.table());
        let evicted = vec![Arc::clone(&revision)];
        let report = self.0.bid_farewell(&mut book, receipt.clone(), revision, evicted, drain);
        Ok(Done { receipt, report: Some(report) })
    }

    /// Reads the configuration again and does what differs, all or nothing.
    ///
    /// # Errors
    /// Nothing was changed.
    pub fn reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        let events = &self.0.events;
        match self.try_reload() {
            Ok(receipts) => {
                for receipt in &receipts {
                    let (kind, handler) = (receipt.action.name(), receipt.handler.as_str());
                    events.tell(Urgency::Normal, kind, Some(handler), receipt.headline(), Some(receipt.clone()));
                }
                let text = format!("{} of the handlers changed", receipts.len());
                events.tell(Urgency::Normal, "reload", None, text, None);
                Ok(receipts)
            }
            Err(error) => {
                events.tell(Urgency::Loud, "failed", None, format!("reload: {}", chain(&error)), None);
                Err(error)
            }
        }
    }

    fn try_reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        let inner = &*self.0;
        let read = inner.read_config.as_ref().ok_or(OperatorError::NothingToReload)?;
        let mut config = read().map_err(|reason| OperatorError::Config { reason })?;
        self.check_fits(&mut config)?;
        let routes = config.handlers.iter().map(|handler| (handler.name.as_str(), &handler.routes[..]));
        let router = Arc::new(Router::new(routes)?);
        let names: Vec<String> = inner.lock().handlers.iter().map(|handler| handler.name.to_string()).collect();
        let _claims = names.iter().map(|name| inner.claim(name)).collect::<Result<Vec<_>, _>>()?;
        let plans = config.handlers.into_iter().map(|handler| self.plan(handler, &router));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        self.carry_out(plans, router)
    }

    /// What a running host cannot change must be what it was.
    fn check_fits(&self, config: &mut Config) -> Result<(), OperatorError> {
        let inner = &*self.0;
        let mut keys: Vec<String> =
            restart_keys(&inner.server, &config.server).into_iter().map(|key| format!("`server.{key}`")).collect();
        for handler in &mut config.handlers {
            handler.grants.check().map_err(HostError::from)?;
            handler.limits.measure_cpu = inner.gate.measures_cpu();
            if handler.limits.memory > inner.gate.engine.max_memory() {
                keys.push(format!("`limits.memory` of handler `{}` to more than any had at the start", handler.name));
            }
        }
        if keys.is_empty() { Ok(()) } else { Err(OperatorError::NeedsRestart { keys }) }
    }

    /// Has whatever is new about a handler pass the gate.
    fn plan(&self, config: HandlerConfig, router: &Router) -> Result<Plan, OperatorError> {
        let path = package::module_until(&config.module, &self.0.builds)?;
        let configured = inspect(&path)?.digest;
        let known = {
            let book = self.0.lock();
            let handler = book.handlers.iter().find(|handler| *handler.name == *config.name);
            handler.map(|handler| (Arc::clone(&handler.main), handler.configured.clone(), handler.loaded(&configured)))
        };
        // What was swapped in stays, unless the configured file has changed since.
        let loaded = match &known {
            Some((main, before, _)) if *before == configured && main.has_settings(&config) => {
                return Ok(Plan { config, configured, planned_on: Some(main.number), admitted: None });
            }
            Some((main, before, _)) if *before == configured => Some(Arc::clone(&main.module)),
            Some((_, _, loaded)) => loaded.clone(),
            None => None,
        };
        let planned_on = known.map(|(main, ..)| main.number);
        let admitted = Some(self.0.gate.admit(&path, loaded, &config, router)?);
        Ok(Plan { config, configured, planned_on, admitted })
    }

    /// Makes the handlers what was planned; all become visible at once.
    ///
    /// # Errors
    /// A handler was rolled back since it was planned for, which needs no claim.
    fn carry_out(&self, plans: Vec<Plan>, router: Arc<Router>) -> Result<Vec<Receipt>, OperatorError> {
        let inner = &*self.0;
        let mut book = inner.lock();
        for Plan { config, planned_on, .. } in &plans {
            if let Some(number) = planned_on
                && book.handler(&config.name)?.main.number != *number
            {
                return Err(OperatorError::Busy { name: config.name.clone() });
            }
        }
        let book = &mut *book;
        let mut before: Vec<Handler> = std::mem::take(&mut book.handlers);
        let mut done = Vec::new();
        for Plan { config, configured, admitted, .. } in plans {
            let known = before.iter().position(|handler| *handler.name == *config.name).map(|at| before.remove(at));
            let source = config.module.display().to_string();
            match (known, admitted) {
                (Some(mut handler), admitted) => {
                    (handler.config, handler.configured) = (config, configured);
                    if let Some(Admitted { module, code, probed }) = admitted {
                        let new_imports = new_imports(&module, &handler.main.module);
                        let revision = handler.make(module, source);
                        let receipt = self.receipt(Action::Swap, Some(&handler.main), &revision);
                        let receipt = Receipt { code, probe: probed, new_imports, ..receipt };
                        let replaced = handler.put(revision);
                        handler.last = Some(receipt.clone());
                        let evicted = handler.keep(Arc::clone(&replaced));
                        done.push((receipt, Some((replaced, evicted, handler.config.drain))));
                    }
                    book.handlers.push(handler);
                }
                (None, Some(Admitted { module, code, probed })) => {
                    let mut handler = Handler::new(config, module, source, configured, &inner.bell);
                    let receipt = Receipt { code, probe: probed, ..self.receipt(Action::Add, None, &handler.main) };
                    handler.last = Some(receipt.clone());
                    done.push((receipt, None));
                    book.handlers.push(handler);
                }
                // A handler that is not known has been through the gate.
                (None, None) => {}
            }
        }
        for mut handler in before {
            let receipt = self.receipt(Action::Remove, None, &handler.main);
            handler.main.replaced(true);
            let evicted = handler.keep_none();
            done.push((receipt, Some((Arc::clone(&handler.main), evicted, handler.config.drain))));
        }
        book.router = router;
        inner.tables.publish(book.table());
        inner.watch_bell.ring();
        for (receipt, drains) in &done {
            if let Some((replaced, evicted, drain)) = drains {
                inner.bid_farewell(book, receipt.clone(), Arc::clone(replaced), evicted.clone(), *drain);
            }
        }
        Ok(done.into_iter().map(|(receipt, _)| receipt).collect())
    }

    /// Stops the host as SIGTERM does.
    pub fn stop(&self) {
        if let Some(stop) = &self.0.stop {
            stop();
        }
    }

    /// How long requests may take to finish when the host stops.
    pub fn drain(&self) -> Duration {
        self.0.server.drain
    }

    /// What happens to handlers.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    /// A receipt of what happens now.
    fn receipt(&self, action: Action, from: Option<&Revision>, to: &Revision) -> Receipt {
        Receipt {
            handler: to.handler.to_string(),
            action,
            from: from.map(|from| from.number),
            to: to.number,
            sha256: to.sha256().to_owned(),
            code: "loaded".to_owned(),
            probe: None,
            live: now(),
            saved_ms: None,
            share: None,
            new_imports: Vec::new(),
            outlives_restart: false,
            drained: None,
            freed: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Tells why something was not done.
    pub(crate) fn tell_failed(&self, name: &str, error: &OperatorError) {
        self.0.events.tell(Urgency::Loud, "failed", Some(name), chain(error), None);
    }

    /// Tells what was done, or why it was not, and waits for the drain if that is wanted.
    fn told(&self, name: &str, done: Result<Done, OperatorError>, no_wait: bool) -> Result<Receipt, OperatorError> {
        let events = &self.0.events;
        match done {
            Err(error) => {
                self.tell_failed(name, &error);
                Err(error)
            }
            Ok(Done { receipt, report }) => {
                let (kind, told) = (receipt.action.name(), Some(receipt.clone()));
                events.tell(Urgency::Normal, kind, Some(name), receipt.headline(), told);
                self.collect();
                let waits_for = report.filter(|_| !no_wait);
                Ok(waits_for.and_then(|report| report.wait()).unwrap_or(receipt))
            }
        }
    }
}

/// Where a new module is from.
enum Origin<'a> {
    /// Handed in.
    Operator { module: &'a Path, source: &'a str },
    /// The configured one, which was saved so long ago.
    Configured { age: &'a dyn Fn() -> Duration },
}

/// What came of a request of an operator's.
struct Done {
    receipt: Receipt,
    /// Where to wait for the complete receipt, if something drains.
    report: Option<Arc<Report>>,
}

/// A handler as a reload wants it.
struct Plan {
    config: HandlerConfig,
    /// The digest of the configured module.
    configured: String,
    /// The number of the revision that was live then, if the handler is not new.
    planned_on: Option<u32>,
    /// What has to become a new revision.
    admitted: Option<Admitted>,
}

/// For the thread that looks after what is going on: `steward.rs`.
impl Operator {
    /// Does what is due: drains, frees, guards. When to look again, if nobody rings.
    pub(crate) fn look_after(&self) -> Option<Instant> {
        let inner = &*self.0;
        let mut complete = Vec::new();
        let mut verdicts = Vec::new();
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Instant| next = Some(next.map_or(at, |next: Instant| next.min(at)));
        {
            let mut book = inner.lock();
            let book = &mut *book;
            let mut going_on = Vec::new();
            for mut farewell in std::mem::take(&mut book.farewells) {
                match farewell.look_after(&inner.in_flight) {
                    Ok(receipt) => complete.push((receipt, farewell)),
                    Err(at) => {
                        sooner(at);
                        going_on.push(farewell);
                    }
                }
            }
            book.farewells = going_on;
            for (receipt, _) in &complete {
                let handler = book.handlers.iter_mut().find(|handler| *handler.name == *receipt.handler);
                if let Some(last) = handler.and_then(|handler| handler.last.as_mut())
                    && (last.to, &last.live) == (receipt.to, &receipt.live)
                {
                    *last = receipt.clone();
                }
            }
            for handler in &mut book.handlers {
                if let Some(config) = &handler.config.guard {
                    sooner(handler.history.sample(&handler.main, config));
                }
                if let Some(guard) = &handler.guard {
                    match guard.judge() {
                        Verdict::Waits => sooner(guard.until),
                        verdict => {
                            let is_canary = handler.canary.is_some();
                            verdicts.push((Arc::clone(&handler.name), is_canary, verdict));
                            handler.guard = None;
                        }
                    }
                }
            }
        }
        for (receipt, farewell) in complete {
            if let Some(text) = receipt.farewell() {
                inner.events.tell(Urgency::Normal, "drained", Some(&receipt.handler), text, Some(receipt.clone()));
            }
            farewell.end();
        }
        for (name, is_canary, verdict) in verdicts {
            self.follow(&name, is_canary, verdict);
        }
        next
    }

    /// Does what a guard says.
    fn follow(&self, name: &str, is_canary: bool, verdict: Verdict) {
        let events = &self.0.events;
        match verdict {
            Verdict::Waits => {}
            Verdict::Passed(text) => events.tell(Urgency::Normal, "guard", Some(name), format!("passed: {text}"), None),
            Verdict::Failed(text) => {
                let what = if is_canary { "the canary is aborted" } else { "rolling back" };
                events.tell(Urgency::Loud, "guard", Some(name), format!("{text}: {what}"), None);
                let done = if is_canary { self.try_abort(name) } else { self.try_rollback(name, None) };
                // Told in any case; nobody waits for the drain here, since this thread is who sees to it.
                let _ = self.told(name, done, true);
            }
        }
    }

    /// The handlers whose modules are watched, and where those are.
    pub(crate) fn watched(&self) -> Vec<(Arc<str>, PathBuf)> {
        let book = self.0.lock();
        let watched = book.handlers.iter().filter(|handler| handler.config.watch);
        watched.map(|handler| (Arc::clone(&handler.name), handler.config.module.clone())).collect()
    }

    /// From here on nothing is swapped, and what is being built for that is given up.
    pub(crate) fn begin_stop(&self) {
        self.0.lock().is_stopping = true;
        self.0.builds.cancel();
        if let Some(compiler) = &self.0.gate.compiler {
            compiler.stop();
        }
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

    pub(crate) fn bell(&self) -> &Bell {
        &self.0.bell
    }

    pub(crate) fn watch_bell(&self) -> &Bell {
        &self.0.watch_bell
    }
}

/// What `new` imports and `old` does not: by interface, since a patch release of WASI is no news.
fn new_imports(new: &LoadedModule, old: &LoadedModule) -> Vec<String> {
    let interface = |import: &str| import.split('@').next().unwrap_or_default().to_owned();
    let had: Vec<String> = old.info().imports.iter().map(|import| interface(import)).collect();
    new.info().imports.iter().filter(|import| !had.contains(&interface(import))).cloned().collect()
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
