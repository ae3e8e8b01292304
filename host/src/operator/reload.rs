//! What is done to all handlers: the configuration is read again, and what differs is done, all or nothing.

use std::sync::Arc;

use super::{
    Operator,
    swaps::{check_new_imports, new_imports},
};
use crate::{
    config::{Config, HandlerConfig},
    config_file::restart_keys,
    gate::Admitted,
    guest::inspect,
    handler::Handler,
    host_error::HostError,
    operator_error::OperatorError,
    package,
    receipt::{Action, Receipt},
    router::Router,
};

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

impl Operator {
    pub(super) fn try_reload(&self) -> Result<Vec<Receipt>, OperatorError> {
        let inner = &*self.0;
        let read = inner.read_config.as_ref().ok_or(OperatorError::NothingToReload)?;
        let names: Vec<String> = inner.lock().handlers.iter().map(|handler| handler.name.to_string()).collect();
        let _claims = names.iter().map(|name| inner.claim(name)).collect::<Result<Vec<_>, _>>()?;
        // Read by who has the claims: of two reloads, the later one reads the later text.
        let mut config = read().map_err(|reason| OperatorError::Config { reason })?;
        self.check_fits(&mut config)?;
        let router = Arc::new(config.router()?);
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
        if known.is_some() {
            self.0.lock().check_ready(&config.name)?;
        }
        let admitted = self.0.gate.admit(&path, loaded, &config, router)?;
        if let Some((main, ..)) = &known {
            let imports = new_imports(&admitted.module, &main.module);
            check_new_imports(&imports, main.number, false, config.new_imports)?;
        }
        let planned_on = known.map(|(main, ..)| main.number);
        Ok(Plan { config, configured, planned_on, admitted: Some(admitted) })
    }

    /// Makes the handlers what was planned; all become visible at once.
    ///
    /// # Errors
    /// A handler was rolled back since it was planned for, which needs no claim.
    fn carry_out(&self, plans: Vec<Plan>, router: Arc<Router>) -> Result<Vec<Receipt>, OperatorError> {
        let inner = &*self.0;
        let _change = inner.change();
        let mut book = inner.lock();
        if book.is_stopping {
            return Err(OperatorError::Stopping);
        }
        for handler in &book.handlers {
            if !plans.iter().any(|plan| *plan.config.name == *handler.name) {
                handler.check_no_canary()?;
            }
        }
        for Plan { config, planned_on, .. } in &plans {
            if let Some(number) = planned_on
                && book.handler(&config.name)?.main.number != *number
            {
                return Err(OperatorError::Overtaken { name: config.name.clone() });
            }
        }
        let mut before = std::mem::take(&mut book.handlers);
        let (mut done, mut configured_again, mut surplus) = (Vec::new(), Vec::new(), Vec::new());
        for Plan { config, configured, admitted, .. } in plans {
            let known = before.iter().position(|handler| *handler.name == *config.name).map(|at| before.remove(at));
            let source = config.module.display().to_string();
            match (known, admitted) {
                (Some(mut handler), admitted) => {
                    let is_adjusted = handler.config != config;
                    (handler.config, handler.configured) = (config, configured);
                    if let Some(Admitted { module, code, probed }) = admitted {
                        let new_imports = new_imports(&module, &handler.main.module);
                        let is_same = Arc::ptr_eq(&module, &handler.main.module);
                        let source = if is_same { handler.main.source.clone() } else { source };
                        if !is_same {
                            configured_again.push(handler.name.to_string());
                        }
                        let revision = handler.make(module, source);
                        let receipt = self.receipt(Action::Swap, Some(&handler.main), &revision);
                        let was_recorded = handler.last.as_ref().is_some_and(|last| last.outlives_restart);
                        let outlives_restart = revision.sha256() == handler.configured || was_recorded;
                        let receipt = Receipt { code, probe: probed, new_imports, outlives_restart, ..receipt };
                        let replaced = handler.put(revision);
                        handler.last = Some(receipt.clone());
                        let evicted = handler.keep(Arc::clone(&replaced));
                        done.push((receipt, Some((replaced, evicted, handler.config.drain))));
                    } else if is_adjusted {
                        surplus.extend(handler.trim());
                        done.push((self.receipt(Action::Adjust, Some(&handler.main), &handler.main), None));
                    }
                    book.handlers.push(handler);
                }
                (None, Some(Admitted { module, code, probed })) => {
                    let mut handler = Handler::new(config, module, source, configured, &inner.bell);
                    let receipt = self.receipt(Action::Add, None, &handler.main);
                    let receipt = Receipt { code, probe: probed, outlives_restart: true, ..receipt };
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
            handler.main.set_replaced(true);
            let mut evicted = handler.keep_none();
            evicted.push(Arc::clone(&handler.main));
            configured_again.push(handler.name.to_string());
            done.push((receipt, Some((Arc::clone(&handler.main), evicted, handler.config.drain))));
        }
        book.router = router;
        inner.tables.publish(book.table());
        inner.watch_bell.ring();
        for (receipt, drains) in &done {
            match drains {
                Some((replaced, evicted, drain)) => {
                    inner.bid_farewell(&mut book, receipt.clone(), Arc::clone(replaced), evicted.clone(), *drain);
                }
                None => inner.announce(receipt),
            }
        }
        for revision in &surplus {
            book.let_go(revision);
        }
        drop(book);
        // What was swapped in is replaced by what is configured, or gone.
        for name in configured_again {
            self.remember(&name, || self.forget(&name).map(|()| true));
        }
        Ok(done.into_iter().map(|(receipt, _)| receipt).collect())
    }
}
