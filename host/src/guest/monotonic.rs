//! `wasi:clocks/monotonic-clock` of 0.2: what guests sleep on. A timer is one of the server's own, which wakes the guest's worker straight into
//! a seat; wasmtime-wasi's goes through Tokio's thread first, and a guest that sleeps is what threads are for.

use std::time::{Duration, Instant};

use wasmtime::{
    Result,
    component::{HasData, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::p2::{DynPollable, Pollable, bindings::clocks::monotonic_clock, subscribe};

use super::{
    instance::State,
    watch::{self, WaitsFor},
};

/// Adds the interface to a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    monotonic_clock::add_to_linker::<State, HasMonotonic>(linker, State::monotonic)
}

struct HasMonotonic;

impl HasData for HasMonotonic {
    type Data<'a> = Monotonic<'a>;
}

/// The clock as one request sees it: it begins with it.
pub(crate) struct Monotonic<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) started: Instant,
}

impl monotonic_clock::Host for Monotonic<'_> {
    /// Nanoseconds since the request was started.
    fn now(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// What the clock counts in; how late a timer may be is another matter (WASI 0.2 `wasi:clocks`).
    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<DynPollable>> {
        self.subscribe(self.started.checked_add(Duration::from_nanos(when)))
    }

    fn subscribe_duration(&mut self, nanoseconds: u64) -> Result<Resource<DynPollable>> {
        self.subscribe(Instant::now().checked_add(Duration::from_nanos(nanoseconds)))
    }
}

impl Monotonic<'_> {
    fn subscribe(&mut self, at: Option<Instant>) -> Result<Resource<DynPollable>> {
        let alarm = self.table.push(Alarm { at })?;
        subscribe(self.table, alarm)
    }
}

struct Alarm {
    at: Option<Instant>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        sleep_until(self.at).await;
    }
}

/// Waits until then; for ever, if that is further away than an `Instant` can say.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    if at.is_some_and(|at| at <= Instant::now()) {
        // A guest that polls in a loop with no time to wait: let what it polls for move.
        return astra_server::flush();
    }
    let alarm = async {
        let Some(at) = at else { return std::future::pending().await };
        match astra_server::sleep_until(at) {
            Some(sleep) => sleep.await,
            // No worker's thread: this module's tests.
            None => tokio::time::sleep_until(at.into()).await,
        }
    };
    watch::noting(WaitsFor::Sleep, alarm).await;
}
