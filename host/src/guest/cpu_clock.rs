//! What a thread has used of a CPU. Reading that is a system call, and two of them are a twentieth of what a short request costs: so for a
//! millisecond after the last one, and as long as the thread has not slept, it is told by the clock on the wall.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// What the kernel may have let others run within this, or a file has made the thread wait, counts as the thread's own.
const TRUSTED: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
struct Reading {
    used: Duration,
    at: Instant,
    sleeps: u64,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// CPU time that the calling thread has used, less than a millisecond too much.
pub(crate) fn used() -> Duration {
    let (now, sleeps) = (Instant::now(), astra_server::sleeps());
    if let Some(last) = LAST.get()
        && last.sleeps == sleeps
        && now - last.at < TRUSTED
    {
        return last.used + (now - last.at);
    }
    let used = read();
    LAST.set(Some(Reading { used, at: now, sleeps }));
    used
}

fn read() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_with_the_kernels_and_less_than_a_millisecond_before_it() {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            let (before, told, after) = (read(), used(), read());
            assert!(before.saturating_sub(TRUSTED) <= told && told <= after + TRUSTED, "{before:?} {told:?} {after:?}");
        }
    }

    #[test]
    fn a_sleep_is_not_counted_however_short() {
        let length = Duration::from_micros(300);
        let slept = (0..50).map(|_| {
            let before = used();
            let never = astra_server::wait(std::future::pending::<()>(), Some(Instant::now() + length));
            assert!(never.is_err());
            used().saturating_sub(before)
        });
        // Others may have run meanwhile, but not each time.
        assert!(slept.min().is_some_and(|least| least < length));
    }
}
