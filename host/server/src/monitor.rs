//! The monitor: one thread that ticks every millisecond while requests run. It calls what the embedder wants called (epochs), runs
//! timers and the queue's time-out, and looks for work that nobody attends to. It sleeps while no handler computes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;

use crate::exchange::contained;
use crate::timer::Millis;
use crate::workers::{Worker, Workers};

/// One period.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Idle ticks before it goes to sleep.
const IDLE_TICKS: u32 = 20;

/// Ticks between two looks at all that is queued, which may be thousands.
const TICKS_PER_SWEEP: u64 = 8;

impl Workers {
    /// The monitor: ticks while requests run, and looks for work that nobody attends to.
    pub(crate) fn watch(self: &Arc<Self>) {
        let mut idle = 0;
        let mut steps = 0;
        let mut ticks: u64 = 0;
        let mut clocks = HashMap::new();
        while !self.closed.load(Ordering::SeqCst) {
            if idle >= IDLE_TICKS {
                self.monitor_awake.store(false, Ordering::SeqCst);
                if self.seats.pulse().idle && !self.closed.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.monitor_awake.store(true, Ordering::SeqCst);
                idle = 0;
            }
            std::thread::park_timeout(TICK);
            let pulse = self.seats.pulse();
            if pulse.idle {
                idle += 1;
                continue;
            }
            idle = 0;
            if pulse.unattended && pulse.steps == steps {
                self.relieve(&mut clocks);
            } else {
                clocks.clear();
            }
            steps = pulse.steps;
            ticks += 1;
            // What the embedder has us call must not end the monitor.
            contained("a callback", || self.tick(ticks));
        }
    }

    fn tick(self: &Arc<Self>, number: u64) {
        (self.options.on_tick)();
        self.reactor.timers.fire();
        self.announce_old_notes();
        if !number.is_multiple_of(TICKS_PER_SWEEP) {
            return;
        }
        for request in self.seats.expire(|request| request.is_over()) {
            // To nobody, if its client has gone.
            if !request.slot().is_gone() {
                request.refuse(StatusCode::SERVICE_UNAVAILABLE);
            }
        }
    }

    fn announce_old_notes(self: &Arc<Self>) {
        if !self.any_noted.swap(false, Ordering::SeqCst) {
            return;
        }
        let now = self.reactor.timers.recent();
        for (worker, running) in self.running(|running| !running.waits) {
            let age = now.saturating_sub(running.since);
            if age > 0 {
                self.announce_held(&worker);
            }
            if age > 1 {
                self.announce_noted(&running.slot);
            } else {
                // Its worker is most likely about to do it.
                self.any_noted.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Nothing moved for a tick although there is work. A thread that sleeps and whose CPU clock stood still has blocked without
    /// saying so: its seat goes to another. If all have computed, a worker is sent that takes polls only, so that CPU-bound requests cannot
    /// multiply.
    fn relieve(self: &Arc<Self>, clocks: &mut HashMap<u64, (Millis, u64)>) {
        let mut displaced = false;
        let mut seen = HashMap::new();
        for (worker, running) in self.running(|running| !running.waits) {
            let Some((thread, clock)) = worker.clock() else { continue };
            if clocks.get(&thread) == Some(&(running.since, clock)) && worker.is_asleep() {
                self.act(self.seats.displace(&worker.member));
                displaced = true;
            }
            seen.insert(thread, (running.since, clock));
        }
        *clocks = seen;
        if !displaced {
            self.act(self.seats.relieve());
        }
        // No thread to be had, and all others wait: this one keeps connections alive and lets the queue time out.
        if self.seats.try_polling() {
            let mut tasks = self.reactor.poll(false);
            while let Some(task) = tasks.pop().or_else(|| self.seats.pop_poll()) {
                if task.state().start() {
                    self.run_task(task);
                }
            }
            self.seats.end_polling();
        }
    }
}

impl Worker {
    /// The thread's id, and the nanoseconds that it has spent on a CPU (the kernel's sched-stats documentation).
    #[cfg(target_os = "linux")]
    fn clock(&self) -> Option<(u64, u64)> {
        let clock = self.read("schedstat")?.split(' ').next()?.parse().ok()?;
        Some((u64::try_from(self.thread_id.as_raw_nonzero().get()).ok()?, clock))
    }

    /// Whether the thread is asleep in the kernel, not just waiting for a core (proc(5), `/proc/pid/stat`).
    #[cfg(target_os = "linux")]
    fn is_asleep(&self) -> bool {
        // The state follows the name, which is in parentheses.
        let is_asleep = |stat: String| Some(stat.rsplit_once(") ")?.1.starts_with(['S', 'D']));
        self.read("stat").and_then(is_asleep).unwrap_or(false)
    }

    #[cfg(target_os = "linux")]
    fn read(&self, file: &str) -> Option<String> {
        let id = self.thread_id.as_raw_nonzero();
        std::fs::read_to_string(format!("/proc/self/task/{id}/{file}")).ok()
    }

    /// Elsewhere an unannounced block is not told from computing: the relief keeps connections alive, but requests wait.
    #[cfg(not(target_os = "linux"))]
    fn clock(&self) -> Option<(u64, u64)> {
        None
    }

    #[cfg(not(target_os = "linux"))]
    fn is_asleep(&self) -> bool {
        false
    }
}
