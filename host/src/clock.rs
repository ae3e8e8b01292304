//! Notices that the machine's clock was set while the host serves. Nothing but the times in the log depends on that clock: time-outs,
//! deadlines and drains count one that does not jump. Looked at by the server's monitor, at each tick.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What is no jump, but a clock that is kept right.
const STEADY: Duration = Duration::from_secs(5);

/// Compares the clock that people read with the one that does not jump.
pub(crate) struct Clock {
    started: Instant,
    /// How far the one was ahead of the other when it was last looked at, in milliseconds. Relaxed: written and read by one thread.
    ahead: AtomicI64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self { started: Instant::now(), ahead: AtomicI64::new(0) };
        clock.jump();
        clock
    }

    /// Says so if it was set since the last look.
    pub(crate) fn look(&self) {
        let jump = self.jump();
        if Duration::from_millis(jump.unsigned_abs()) > STEADY {
            let whence = if jump > 0 { "ahead (or the machine slept)" } else { "back" };
            // To the second.
            let length = humantime::format_duration(Duration::from_secs((jump.unsigned_abs() + 500) / 1000));
            log::warn!("the clock was set {whence} by {length}: time-outs do not count that");
        }
    }

    /// How much further ahead it is than at the last look, in milliseconds.
    fn jump(&self) -> i64 {
        let steady = self.started.elapsed();
        let ahead = match SystemTime::now().duration_since(UNIX_EPOCH + steady) {
            Ok(ahead) => millis(ahead),
            Err(error) => -millis(error.duration()),
        };
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        ahead.saturating_sub(before)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_let_alone_does_not_jump_and_one_that_was_set_does_once() {
        let clock = Clock::new();
        assert!(clock.jump().unsigned_abs() < 5000);
        let day = 24 * 3600 * 1000;
        // As if it had been a day behind.
        clock.ahead.fetch_sub(day, Ordering::Relaxed);
        assert!(clock.jump().abs_diff(day) < 5000);
        assert!(clock.jump().unsigned_abs() < 5000);
        clock.ahead.fetch_add(day, Ordering::Relaxed);
        assert!(clock.jump().abs_diff(-day) < 5000);
    }
}
