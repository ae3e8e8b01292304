//! The guard: after a swap, or beside a canary, compares how much fails on the new revision and on the other side.
//!
//! Pure but for the clock; the steward asks, and acts. A judgement needs enough answers, and is made at each failure.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::GuardConfig,
    revision::{Revision, Tally},
};

/// Looks a window at the past.
const SAMPLES: u32 = 30;

/// What a revision had answered, from time to time, for as long as a guard would look back.
pub(crate) struct History(VecDeque<(Instant, Tally)>);

impl History {
    /// What a revision will answer from here on.
    pub(crate) fn from_now(revision: &Revision) -> Self {
        Self(VecDeque::from([(Instant::now(), revision.tally())]))
    }

    /// Takes a sample if it is time, and says when it is again.
    pub(crate) fn sample(&mut self, revision: &Revision, config: &GuardConfig) -> Instant {
        let now = Instant::now();
        let step = config.window / SAMPLES;
        if self.0.back().is_none_or(|(last, _)| *last + step <= now) {
            self.0.push_back((now, revision.tally()));
            while self.0.len() > SAMPLES as usize + 1 {
                self.0.pop_front();
            }
        }
        self.0.back().map_or(now, |(last, _)| *last) + step
    }

    /// What a revision has answered within the window that ends now.
    fn within(&self, revision: &Revision, window: Duration) -> Tally {
        let start = Instant::now().checked_sub(window);
        let before = self.0.iter().rev().find(|(at, _)| start.is_some_and(|start| *at <= start));
        // One that is not as old has all of it.
        let before = before.or(self.0.front()).map(|(_, tally)| *tally);
        since(revision.tally(), before.unwrap_or_default())
    }
}

/// A guard on its watch.
pub(crate) struct Watchman {
    pub(crate) revision: Arc<Revision>,
    at_start: Tally,
    other: Other,
    config: GuardConfig,
    pub(crate) until: Instant,
}

enum Other {
    /// In the window before the swap.
    Before(Tally),
    /// In the same time.
    Beside(Arc<Revision>, Tally),
}

/// What it says.
pub(crate) enum Verdict {
    /// Too early to tell.
    Waits,
    /// Its time is over, and nothing was wrong.
    Passed(String),
    /// Too much fails: take the revision back.
    Failed(String),
}

impl Watchman {
    /// Watches `revision`, which has replaced `before`.
    pub(crate) fn after(revision: &Arc<Revision>, before: &Revision, history: &History, config: &GuardConfig) -> Self {
        Self::new(revision, Other::Before(history.within(before, config.window)), config)
    }

    /// Watches `revision`, which has a share of the requests beside `main`.
    pub(crate) fn beside(revision: &Arc<Revision>, main: &Arc<Revision>, config: &GuardConfig) -> Self {
        Self::new(revision, Other::Beside(Arc::clone(main), main.tally()), config)
    }

    fn new(revision: &Arc<Revision>, other: Other, config: &GuardConfig) -> Self {
        revision.set_guarded(true);
        let (revision, at_start) = (Arc::clone(revision), revision.tally());
        Self { revision, at_start, other, config: config.clone(), until: Instant::now() + config.window }
    }

    /// For people: what it is at.
    pub(crate) fn status(&self) -> String {
        let left = self.until.saturating_duration_since(Instant::now());
        format!("watches r{} for another {} s", self.revision.number, left.as_secs())
    }

    pub(crate) fn judge(&self) -> Verdict {
        let tally = since(self.revision.tally(), self.at_start);
        let other = match &self.other {
            Other::Before(tally) => *tally,
            Other::Beside(main, at_start) => since(main.tally(), *at_start),
        };
        let allowed = rate(other) + f64::from(self.config.max_failures.ten_thousandths()) / 10_000.0;
        let number = self.revision.number;
        let Tally { ended, failed } = tally;
        let text = format!("{failed} of {ended} requests on r{number} failed, allowed is {:.1} %", allowed * 100.0);
        let is_enough = ended >= self.config.min_requests;
        if is_enough && rate(tally) > allowed {
            Verdict::Failed(text)
        } else if Instant::now() >= self.until {
            let too_few = if is_enough { "" } else { "; too few to judge" };
            Verdict::Passed(text + too_few)
        } else {
            Verdict::Waits
        }
    }
}

impl Drop for Watchman {
    fn drop(&mut self) {
        self.revision.set_guarded(false);
    }
}

fn since(now: Tally, then: Tally) -> Tally {
    Tally { ended: now.ended.saturating_sub(then.ended), failed: now.failed.saturating_sub(then.failed) }
}

fn rate(Tally { ended, failed }: Tally) -> f64 {
    if ended == 0 { 0.0 } else { failed as f64 / ended as f64 }
}
