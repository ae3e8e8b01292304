//! What is done to one handler: a module swapped in, a revision gone back to, a canary promoted or aborted.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use super::{Change, Operator, SwapOptions, chain};
use crate::{
    config::NewImports,
    events::{Urgency, now},
    gate::Admitted,
    guest::{ModuleFile, ModuleInfo, interface},
    operator_error::OperatorError,
    package,
    receipt::{Action, Receipt, milliseconds},
    revision::Revision,
    short_text::shortened,
    state_dir::Recording,
};

/// Bytes of an import's name in a receipt: its version may be as long as its module likes.
const IMPORT: usize = 256;

/// Where a new module is from.
pub(super) enum Origin<'a> {
    /// Handed in.
    Operator { module: &'a Path, source: &'a str },
    /// The configured one, which was saved so long ago.
    Configured { age: &'a dyn Fn() -> Duration },
}

impl Operator {
    /// # Errors
    /// It was not published.
    pub(super) fn try_swap(
        &self,
        name: &str,
        origin: &Origin<'_>,
        options: &SwapOptions,
    ) -> Result<Receipt, OperatorError> {
        let inner = &*self.0;
        let _claim = inner.claim(name)?;
        let (config, before, configured, router) = {
            let mut book = inner.lock();
            book.check_ready(name)?;
            let router = Arc::clone(&book.router);
            let handler = book.handler(name)?;
            (handler.config.clone(), Arc::clone(&handler.main), handler.configured.clone(), router)
        };
        let (path, source) = match origin {
            Origin::Operator { module, source } => (*module, (*source).to_owned()),
            Origin::Configured { .. } => (&*config.module, config.module.display().to_string()),
        };
        let path = package::module_until(path, &inner.builds)?;
        let file = ModuleFile::read(&path)?;
        let sha256 = file.info.digest.clone();
        let is_known = match origin {
            Origin::Operator { .. } => before.sha256() == sha256 && before.has_settings(&config),
            // What was swapped in since stays, if only the time of the file is new.
            Origin::Configured { .. } => configured == sha256,
        };
        if is_known {
            let mut receipt = self.receipt(Action::Unchanged, Some(&before), &before);
            if let Origin::Operator { .. } = origin {
                self.keep(name, &sha256, &path, options)?;
                let _change = inner.change();
                self.check_still(name, &before)?;
                let recording = Recording { sha256: &sha256, configured: &configured, source: &before.source };
                receipt.outlives_restart = self.record_as_wanted(name, &recording, options)?;
            }
            return Ok(receipt);
        }
        let refuses = options.no_new_imports || config.new_imports == NewImports::Refuse;
        check_new_imports(&file.info, &before, refuses)?;
        let loaded = inner.lock().handler(name)?.loaded(&sha256);
        let Admitted { module, code, probed } = inner.gate.admit(file, loaded, &config, &router)?;
        // What machine code imports is known only now.
        let new_imports = check_new_imports(module.info(), &before, refuses)?;
        if let Origin::Operator { .. } = origin {
            self.keep(name, &sha256, &path, options)?;
        }

        let _change = inner.change();
        self.check_still(name, &before)?;
        let recording = Recording { sha256: &sha256, configured: &configured, source: &source };
        let outlives_restart = match origin {
            Origin::Operator { .. } => self.record_as_wanted(name, &recording, options)?,
            // The file is what a restart finds.
            Origin::Configured { .. } => self.forget(name).map(|()| true)?,
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
        match options.canary {
            Some(share) => {
                handler.put_canary(revision, share);
                handler.last = Some(receipt.clone());
                inner.tables.publish(book.table());
                inner.announce(&receipt);
            }
            None => inner.go_live(&mut book, name, &revision, receipt.clone())?,
        }
        Ok(receipt)
    }

    /// Who stops, or has found another revision or a canary meanwhile, must not find what was made for this one recorded.
    fn check_still(&self, name: &str, live: &Arc<Revision>) -> Result<(), OperatorError> {
        let mut book = self.0.lock();
        book.check_ready(name)?;
        if Arc::ptr_eq(&book.handler(name)?.main, live) {
            return Ok(());
        }
        Err(OperatorError::Overtaken { name: name.to_owned() })
    }

    /// Goes back; if `from` is given, only if that is still the live revision.
    ///
    /// # Errors
    /// It is not kept, there is a canary, or `from` is not live any more.
    pub(super) fn try_rollback(
        &self,
        _change: &Change<'_>,
        name: &str,
        to: Option<u32>,
        from: Option<&Arc<Revision>>,
    ) -> Result<Receipt, OperatorError> {
        let (receipt, revision, configured) = {
            let mut book = self.0.lock();
            let handler = book.handler(name)?;
            handler.check_no_canary()?;
            if from.is_some_and(|from| !Arc::ptr_eq(from, &handler.main)) {
                return Err(OperatorError::Overtaken { name: name.to_owned() });
            }
            let revision = handler.earlier(to)?;
            let configured = handler.configured.clone();
            let mut receipt = self.receipt(Action::Rollback, Some(&handler.main), &revision);
            // As it will be if nothing fails.
            receipt.outlives_restart = self.0.state.is_some() || revision.sha256() == configured;
            let left = Arc::clone(&handler.main);
            self.0.go_live(&mut book, name, &revision, receipt.clone())?;
            // One that was before it was not left because of what it is.
            left.set_withdrawn(left.number > revision.number);
            // What is gone back to is known.
            book.handler(name)?.guards.clear();
            (receipt, revision, configured)
        };
        Ok(self.remember_live(name, &revision, &configured, receipt))
    }

    /// # Errors
    /// There is no canary.
    pub(super) fn try_promote(&self, name: &str) -> Result<Receipt, OperatorError> {
        let _change = self.0.change();
        let (receipt, revision, configured) = {
            let mut book = self.0.lock();
            let handler = book.handler(name)?;
            let revision = handler.take_canary()?;
            let configured = handler.configured.clone();
            let mut receipt = self.receipt(Action::Promote, Some(&handler.main), &revision);
            receipt.outlives_restart = self.0.state.is_some() || revision.sha256() == configured;
            self.0.go_live(&mut book, name, &revision, receipt.clone())?;
            (receipt, revision, configured)
        };
        Ok(self.remember_live(name, &revision, &configured, receipt))
    }

    /// Takes the canary back; if `only` is given, only if it is that.
    ///
    /// # Errors
    /// There is none, or another.
    pub(super) fn try_abort(
        &self,
        _change: &Change<'_>,
        name: &str,
        only: Option<&Arc<Revision>>,
    ) -> Result<Receipt, OperatorError> {
        let mut book = self.0.lock();
        let handler = book.handler(name)?;
        if only.is_some_and(|only| !handler.canary().is_ok_and(|canary| Arc::ptr_eq(only, &canary))) {
            return Err(OperatorError::Overtaken { name: name.to_owned() });
        }
        let revision = handler.take_canary()?;
        revision.set_replaced(true);
        let receipt = self.receipt(Action::Abort, Some(&revision), &handler.main);
        handler.last = Some(receipt.clone());
        let drain = handler.config.drain;
        self.0.tables.publish(book.table());
        let evicted = vec![Arc::clone(&revision)];
        self.0.bid_farewell(&mut book, receipt.clone(), revision, evicted, drain);
        Ok(receipt)
    }

    /// Records what a handler serves, so that a restart does too. Whether it will: a module whose file has been replaced, and of which
    /// there is no copy, cannot be.
    ///
    /// # Errors
    /// The disk fails. What was recorded before still is.
    fn record(&self, name: &str, revision: &Recording<'_>) -> Result<bool, OperatorError> {
        if revision.sha256 == revision.configured {
            return self.forget(name).map(|()| true);
        }
        let Some(state) = &self.0.state else { return Ok(false) };
        if !state.keeps(revision.sha256) {
            return self.forget(name).map(|()| false);
        }
        state.record(name, revision).map(|()| true).map_err(OperatorError::State)
    }

    /// Keeps a copy of a module that is about to be recorded.
    ///
    /// # Errors
    /// The disk fails, or the file is not what it was.
    fn keep(&self, name: &str, sha256: &str, path: &Path, options: &SwapOptions) -> Result<(), OperatorError> {
        let Some(state) = self.0.state.as_ref().filter(|_| !options.until_restart) else { return Ok(()) };
        // Not while a new host gets ready: it may soon be its directory.
        drop(self.0.change());
        self.0.lock().handler(name)?.expects(sha256);
        state.keep(sha256, path).map_err(OperatorError::State)
    }

    /// Records a swap, or sees to it that a restart does not know of it, as was asked for. Whether a restart will serve it.
    ///
    /// # Errors
    /// As [`Self::record`].
    fn record_as_wanted(
        &self,
        name: &str,
        recording: &Recording<'_>,
        options: &SwapOptions,
    ) -> Result<bool, OperatorError> {
        match options {
            // A canary is on trial: a restart serves what is live.
            SwapOptions { canary: Some(_), .. } => Ok(false),
            SwapOptions { until_restart: true, .. } => {
                self.forget(name).map(|()| recording.sha256 == recording.configured)
            }
            _ => self.record(name, recording),
        }
    }

    /// Records what is live already: serving what works comes before remembering it, and that it cannot be remembered is no reason to
    /// take it back.
    pub(super) fn remember(&self, name: &str, record: impl FnOnce() -> Result<bool, OperatorError>) -> bool {
        record().unwrap_or_else(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), chain);
            let text = format!("a restart will not serve what is live now: {why}");
            self.0.events.tell(Urgency::Loud, "state", Some(name), text, None);
            false
        })
    }

    /// Records a revision that is live already, and has its receipt say whether that was done.
    fn remember_live(&self, name: &str, revision: &Revision, configured: &str, receipt: Receipt) -> Receipt {
        let recording = Recording { sha256: revision.sha256(), configured, source: &revision.source };
        let outlives_restart = self.remember(name, || self.record(name, &recording));
        let receipt = Receipt { outlives_restart, ..receipt };
        self.0.lock().amend(&receipt);
        receipt
    }

    /// A restart serves what is configured.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) fn forget(&self, name: &str) -> Result<(), OperatorError> {
        let forgotten = self.0.state.as_ref().map(|state| state.forget(name)).transpose();
        forgotten.map(drop).map_err(OperatorError::State)
    }

    /// Removes the copies of modules that nobody can go back to.
    pub(super) fn collect(&self) {
        let Some(state) = &self.0.state else { return };
        let collected = state.collect(|| {
            let book = self.0.lock();
            book.handlers.iter().flat_map(|handler| handler.digests().map(str::to_owned)).collect()
        });
        if let Err(error) = collected {
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

/// What `new` imports and `old` does not: by interface, each once, since a patch release of WASI is no news.
pub(super) fn new_imports(new: &ModuleInfo, old: &Revision) -> Vec<String> {
    let mut had: HashSet<_> = old.module.info().imports.iter().map(|import| interface(import)).collect();
    let new = new.imports.iter().filter(|import| had.insert(interface(import)));
    new.map(|import| shortened(import, IMPORT)).collect()
}

/// The same.
///
/// # Errors
/// There are some, and they are not wanted.
pub(super) fn check_new_imports(new: &ModuleInfo, old: &Revision, refuses: bool) -> Result<Vec<String>, OperatorError> {
    let imports = new_imports(new, old);
    let is_refused = refuses && !imports.is_empty();
    if is_refused { Err(OperatorError::NewImports { from: old.number, imports }) } else { Ok(imports) }
}
