//! What is done to all handlers: the configuration is read again, and what differs is done, all or nothing.

use std::{sync::Arc, time::Duration};

use super::{
    Operator,
    book::Book,
    swaps::{check_new_imports, new_imports},
};
use crate::{
    config::{Config, HandlerConfig, NewImports},
    config_file::restart_keys,
    gate::Admitted,
    guest::{ModuleFile, ModuleInfo},
    handler::Handler,
    host_error::HostError,
    operator_error::OperatorError,
    package,
    receipt::{Action, Receipt},
    revision::Revision,
    router::Router,
};

/// What a new process that takes a host's place does not change either: it gets what is open there.
const PLACES: [&str; 3] = ["listen", "control", "control_tcp"];

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

/// What a reload has done to a handler.
struct Change {
    receipt: Receipt,
    /// What was live before, and how long it may drain.
    replaced: Option<(Arc<Revision>, Duration)>,
    kept_no_longer: Vec<Arc<Revision>>,
    /// What was swapped in is not served any more, and to be forgotten.
    is_configured_again: bool,
}

impl Operator {
    /// # Errors
    /// Nothing was changed.
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
        let differ = restart_keys(&inner.server, &config.server);
        let can_upgrade = self.can_upgrade() && !differ.iter().any(|key| PLACES.contains(key));
        let mut keys: Vec<String> = differ.into_iter().map(|key| format!("`server.{key}`")).collect();
        for handler in &mut config.handlers {
            handler.grants.check().map_err(HostError::from)?;
            if handler.limits.memory > inner.gate.engine.max_memory() {
                keys.push(format!("`limits.memory` of handler `{}` to more than any had at the start", handler.name));
            }
        }
        if keys.is_empty() {
            return Ok(());
        }
        let how = if can_upgrade { "an upgrade (`astra-host upgrade`, which drops no request)" } else { "a restart" };
        let place = inner.config.as_ref().map_or_else(String::new, |file| format!("{}: ", file.display()));
        Err(OperatorError::NeedsRestart { place, how, keys })
    }

    /// Has whatever is new about a handler pass the gate.
    fn plan(&self, config: HandlerConfig, router: &Router) -> Result<Plan, OperatorError> {
        let path = package::module_until(&config.module, &self.0.builds)?;
        let file = ModuleFile::read(&path)?;
        let configured = file.info.digest.clone();
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
        let check = |info: &ModuleInfo| {
            let main = known.as_ref().map(|(main, ..)| main);
            main.map_or(Ok(Vec::new()), |main| check_new_imports(info, main, config.new_imports == NewImports::Refuse))
        };
        check(&file.info)?;
        let admitted = self.0.gate.admit(file, loaded, &config, router)?;
        check(admitted.module.info())?;
        let planned_on = known.map(|(main, ..)| main.number);
        Ok(Plan { config, configured, planned_on, admitted: Some(admitted) })
    }

    /// Makes the handlers what was planned; all become visible at once.
    ///
    /// # Errors
    /// The host stops, a handler that goes has a canary, or one was rolled back since it was planned for, which needs no claim.
    fn carry_out(&self, plans: Vec<Plan>, router: Arc<Router>) -> Result<Vec<Receipt>, OperatorError> {
        let inner = &*self.0;
        let _change = inner.change();
        let mut book = inner.lock();
        check_plans(&book, &plans)?;

        let mut before = std::mem::take(&mut book.handlers);
        let mut changes = Vec::new();
        for plan in plans {
            let known =
                before.iter().position(|handler| *handler.name == *plan.config.name).map(|at| before.remove(at));
            let (handler, change) = match known {
                Some(handler) => self.renew(handler, plan),
                None => self.add(plan),
            };
            book.handlers.extend(handler);
            changes.extend(change);
        }
        changes.extend(before.into_iter().map(|handler| self.remove(handler)));
        book.router = router;
        inner.tables.publish(book.table());
        inner.watch_bell.ring();

        let (mut receipts, mut forgotten) = (Vec::new(), Vec::new());
        for Change { receipt, replaced, kept_no_longer, is_configured_again } in changes {
            forgotten.extend(is_configured_again.then(|| receipt.handler.clone()));
            receipts.push(receipt.clone());
            match replaced {
                Some((revision, drain)) => inner.bid_farewell(&mut book, receipt, revision, kept_no_longer, drain),
                None => {
                    inner.announce(&receipt);
                    for revision in &kept_no_longer {
                        book.let_go(revision);
                    }
                }
            }
        }
        drop(book);
        for name in forgotten {
            self.remember(&name, || self.forget(&name).map(|()| true));
        }
        Ok(receipts)
    }

    /// Makes a handler what was planned.
    fn renew(&self, mut handler: Handler, plan: Plan) -> (Option<Handler>, Option<Change>) {
        let is_adjusted = handler.config != plan.config;
        (handler.config, handler.configured) = (plan.config, plan.configured);
        let change = match plan.admitted {
            Some(Admitted { module, code, probed }) => {
                let new_imports = new_imports(module.info(), &handler.main);
                let is_same = Arc::ptr_eq(&module, &handler.main.module);
                let configured = handler.config.module.display().to_string();
                let source = if is_same { handler.main.source.clone() } else { configured };
                let was_recorded = handler.last.as_ref().is_some_and(|last| last.outlives_restart);
                let revision = handler.make(module, source);
                let outlives_restart = revision.sha256() == handler.configured || was_recorded;
                let receipt = self.receipt(Action::Swap, Some(&handler.main), &revision);
                let receipt = Receipt { code, probe: probed, new_imports, outlives_restart, ..receipt };
                let (replaced, kept_no_longer) = handler.put(revision, &receipt);
                let replaced = Some((replaced, handler.config.drain));
                Some(Change { receipt, replaced, kept_no_longer, is_configured_again: !is_same })
            }
            None if is_adjusted => {
                let receipt = self.receipt(Action::Adjust, Some(&handler.main), &handler.main);
                let kept_no_longer = handler.trim();
                Some(Change { receipt, replaced: None, kept_no_longer, is_configured_again: false })
            }
            None => None,
        };
        (Some(handler), change)
    }

    /// Makes a new handler. (Nothing was admitted only for one that is known.)
    fn add(&self, plan: Plan) -> (Option<Handler>, Option<Change>) {
        let Plan { config, configured, admitted, .. } = plan;
        let Some(Admitted { module, code, probed }) = admitted else { return (None, None) };
        let source = config.module.display().to_string();
        let mut handler = Handler::new(config, module, source, configured, &self.0.bell);
        let receipt = self.receipt(Action::Add, None, &handler.main);
        let receipt = Receipt { code, probe: probed, outlives_restart: true, ..receipt };
        handler.last = Some(receipt.clone());
        let change = Change { receipt, replaced: None, kept_no_longer: Vec::new(), is_configured_again: false };
        (Some(handler), Some(change))
    }

    /// Of a handler that is gone nothing is kept, and nothing remembered.
    fn remove(&self, mut handler: Handler) -> Change {
        let receipt = self.receipt(Action::Remove, None, &handler.main);
        handler.main.set_replaced(true);
        let mut kept_no_longer = handler.keep_none();
        kept_no_longer.push(Arc::clone(&handler.main));
        let replaced = Some((Arc::clone(&handler.main), handler.config.drain));
        Change { receipt, replaced, kept_no_longer, is_configured_again: true }
    }
}

/// # Errors
/// Things are not what they were when this was planned.
fn check_plans(book: &Book, plans: &[Plan]) -> Result<(), OperatorError> {
    if book.is_stopping {
        return Err(OperatorError::Stopping);
    }
    for handler in &book.handlers {
        match plans.iter().find(|plan| *plan.config.name == *handler.name) {
            None => handler.check_no_canary()?,
            Some(plan) if plan.planned_on.is_some_and(|number| number != handler.main.number) => {
                return Err(OperatorError::Overtaken { name: handler.name.to_string() });
            }
            Some(_) => {}
        }
    }
    Ok(())
}
