//! The thread that looks after revisions: it ends drains, frees what nobody needs, asks the guards. Asleep unless there is something
//! to do; swaps and the last requests of replaced revisions ring.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use super::Operator;
use crate::{events::Urgency, guard::Verdict};

/// The thread, joined when it is dropped.
pub(crate) struct Steward {
    operator: Operator,
    thread: Option<JoinHandle<()>>,
}

impl Steward {
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(operator: &Operator) -> io::Result<Self> {
        let theirs = operator.clone();
        let look_after = move || {
            theirs.0.bell.answer();
            while !theirs.is_stopping() {
                match theirs.look_after() {
                    Some(next) => thread::park_timeout(next.saturating_duration_since(Instant::now())),
                    None => thread::park(),
                }
            }
        };
        let thread = thread::Builder::new().name("astra-steward".to_owned()).spawn(look_after)?;
        Ok(Self { operator: operator.clone(), thread: Some(thread) })
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        self.operator.begin_stop();
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
        self.operator.end();
    }
}

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
}
