//! What one request has used of a CPU.
//!
//! The kernel has a clock for each thread, but each look at it is a system call, and two of them are a tenth of what a short request costs. So a
//! request that takes less than a millisecond and waits for nothing is told by the clock on the wall, and for the others the start is reckoned
//! back from the first look. If the kernel has let others run before that, their time is told as the request's: less than a millisecond. What is
//! told is never less than the thread has used, but for the microsecond that lies between the readings of two clocks.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// A look that is no older serves others.
const FRESH: Duration = Duration::from_millis(1);

/// CPU time of the calling thread, since a request has started on it.
pub(crate) struct CpuTime {
    started: Instant,
    /// The thread had used no less then.
    least: Duration,
    /// And so much, once that was wanted.
    from: Option<Duration>,
}

impl CpuTime {
    pub(crate) fn start(started: Instant) -> Self {
        let last = LAST.get().filter(|last| started.saturating_duration_since(last.at) < FRESH);
        Self { started, least: last.unwrap_or_else(Look::now).used, from: None }
    }

    /// What the thread had used at the start. To be asked before the request waits for the first time: what it sleeps then is not
    /// taken for work.
    pub(crate) fn from(&mut self) -> Duration {
        self.from.unwrap_or_else(|| self.reckon(Look::now()))
    }

    pub(crate) fn used(&mut self) -> Duration {
        let time = self.started.elapsed();
        if self.from.is_none() && time < FRESH {
            return time;
        }
        let now = Look::now();
        now.used.saturating_sub(self.reckon(now))
    }

    fn reckon(&mut self, now: Look) -> Duration {
        let ran = now.at - self.started;
        *self.from.get_or_insert_with(|| now.used.saturating_sub(ran).max(self.least))
    }
}

/// What the clock of this thread has said, and when.
#[derive(Clone, Copy)]
struct Look {
    used: Duration,
    at: Instant,
}

thread_local! {
    static LAST: Cell<Option<Look>> = const { Cell::new(None) };
}

impl Look {
    fn now() -> Self {
        let at = Instant::now();
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let look = Self { used: Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32), at };
        LAST.set(Some(look));
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two clocks need not go alike.
    const SLACK: Duration = Duration::from_micros(20);

    #[test]
    fn it_is_no_less_than_the_thread_has_used_and_less_than_a_millisecond_more() {
        // Between the readings of two clocks the core may be taken away: then what is told is off by as long as that took.
        let was_interrupted = |look: &mut dyn FnMut() -> Duration| {
            let asked = Instant::now();
            let told = look();
            (told, asked.elapsed() > SLACK)
        };
        let is_telling = |round: u32| {
            let mut time = CpuTime::start(Instant::now());
            let before = Look::now().used;
            while time.started.elapsed() < FRESH * (round % 4) / 2 {}
            if round.is_multiple_of(3) {
                if was_interrupted(&mut || time.from()).1 {
                    return false;
                }
                std::thread::sleep(FRESH * (round % 2) * 2);
            }
            let least = Look::now().used - before;
            let (told, was_interrupted) = was_interrupted(&mut || time.used());
            if was_interrupted {
                return false;
            }
            let most = Look::now().used - before + FRESH;
            assert!(least <= told + SLACK && told <= most + SLACK, "{least:?} {told:?} {most:?}");
            true
        };
        let rounds = (0..300).filter(|round| is_telling(*round)).count();
        assert!(rounds >= 100, "only {rounds} were not interrupted");
    }

    #[test]
    fn a_wait_is_none_however_short() {
        let told = (0..50).map(|_| {
            let mut time = CpuTime::start(Instant::now());
            let _ = time.from();
            std::thread::sleep(FRESH / 3);
            time.used()
        });
        // Others may have run meanwhile, but not each time.
        assert!(told.min().is_some_and(|least| least < FRESH / 3));
    }
}
