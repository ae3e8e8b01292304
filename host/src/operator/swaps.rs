//! What is done to one handler: a module swapped in, a revision gone back to, a canary promoted or aborted.

use std::{path::Path, sync::Arc, time::Duration};

use super::{Operator, SwapOptions};
use crate::{
    config::NewImports,
    events::now,
    farewell::Report,
    gate::Admitted,
    guest::{LoadedModule, inspect},
    operator_error::OperatorError,
    package,
    receipt::{Action, Receipt, milliseconds},
    revision::Revision,
    state_dir::Recording,
};

/// Where a new module is from.
pub(super) enum Origin<'a> {
    /// Handed in.
    Operator { module: &'a Path, source: &'a str },
    /// The configured one, which was saved so long ago.
    Configured { age: &'a dyn Fn() -> Duration },
}

/// What came of a request of an operator's.
pub(super) struct Done {
    pub(super) receipt: Receipt,
    /// Where to wait for the complete receipt, if something drains.
    pub(super) report: Option<Arc<Report>>,
}

impl Operator {
    pub(super) fn try_swap(
        &self,
        name: &str,
        origin: &Origin<'_>,
        options: &SwapOptions,
    ) -> Result<Done, OperatorError> {
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
        let loaded = inner.lock().handler(name)?.expect(&sha256);
        let Admitted { module, code, probed } = inner.gate.admit(&path, loaded, &config, &router)?;
        // It may have been replaced since it was looked at.
        let sha256 = module.info().digest.clone();
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
                inner.announce(&receipt);
                None
            }
            None => Some(inner.go_live(&mut book, name, &revision, receipt.clone())?),
        };
        Ok(Done { receipt, report })
    }

    pub(super) fn try_rollback(&self, name: &str, to: Option<u32>) -> Result<Done, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        handler.check_no_canary()?;
        let revision = handler.earlier(to)?;
        let outlives_restart = self.record(name, &handler.recording(&revision))?;
        let receipt = self.receipt(Action::Rollback, Some(&handler.main), &revision);
        let receipt = Receipt { outlives_restart, ..receipt };
        let report = self.0.go_live(&mut book, name, &revision, receipt.clone())?;
        // What is gone back to is known.
        book.handler(name)?.guard = None;
        Ok(Done { receipt, report: Some(report) })
    }

    pub(super) fn try_promote(&self, name: &str) -> Result<Done, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        let canary = handler.canary()?;
        let outlives_restart = self.record(name, &handler.recording(&canary))?;
        let revision = handler.take_canary()?;
        let receipt = self.receipt(Action::Promote, Some(&handler.main), &revision);
        let receipt = Receipt { outlives_restart, ..receipt };
        let report = self.0.go_live(&mut book, name, &revision, receipt.clone())?;
        Ok(Done { receipt, report: Some(report) })
    }

    pub(super) fn try_abort(&self, name: &str) -> Result<Done, OperatorError> {
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
    pub(super) fn collect(&self) {
        let Some(state) = &self.0.state else { return };
        let digests: Vec<String> = {
            let book = self.0.lock();
            book.handlers.iter().flat_map(|handler| handler.digests().map(str::to_owned)).collect()
        };
        if let Err(error) = state.collect(&digests.iter().map(String::as_str).collect::<Vec<_>>()) {
            log::warn!("modules that are not needed any more cannot be removed: {error}");
        }
    }

    /// A receipt of what happens now.
    pub(super) fn receipt(&self, action: Action, from: Option<&Revision>, to: &Revision) -> Receipt {
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
}

/// What `new` imports and `old` does not: by interface, since a patch release of WASI is no news.
pub(super) fn new_imports(new: &LoadedModule, old: &LoadedModule) -> Vec<String> {
    let interface = |import: &str| import.split('@').next().unwrap_or_default().to_owned();
    let had: Vec<String> = old.info().imports.iter().map(|import| interface(import)).collect();
    new.info().imports.iter().filter(|import| !had.contains(&interface(import))).cloned().collect()
}
