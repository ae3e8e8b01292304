//! The linear memory and the tables of all guests together: what the host may give, and what it has given. Pure but for finding the default.
//!
//! Each guest has a limit of its own (`limits.rs`), which says nothing about a thousand of them. Workers charge what their guests ask
//! for, whether they write to it or not, and give it back when the guest has ended.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Of the memory that there is, guests get so many percent unless told otherwise: the rest is for code, bodies and threads.
const SHARE: u64 = 70;

/// What all guests of an engine may have, in bytes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MemoryBudget(Arc<Inner>);

struct Inner {
    limit: u64,
    used: AtomicU64,
}

impl MemoryBudget {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Arc::new(Inner { limit, used: AtomicU64::new(0) }))
    }

    /// A share of the control group's memory, or of the machine's. Without end where neither is known.
    pub(crate) fn of_this_machine() -> Self {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits =
            limit_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
        Self::new(limits.chain(machine).min().map_or(u64::MAX, |memory: u64| memory / 100 * SHARE))
    }

    pub(crate) fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Whether there are `bytes` more, which are taken then.
    pub(crate) fn take(&self, bytes: u64) -> bool {
        // Relaxed: nothing else is published with the number.
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.0.limit);
        self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The machine's memory, as /proc/meminfo tells it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Where the limits of our control groups stand, if they have any: the group of version 2 and those above it, and version 1's as a
/// container sees it. `groups` is what /proc/self/cgroup says.
fn limit_files(groups: &str) -> Vec<String> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let above = Path::new(path).ancestors().filter_map(Path::to_str);
    let mut files: Vec<String> =
        above.map(|group| format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/'))).collect();
    files.push("/sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned());
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let budget = MemoryBudget::new(100);
        assert!(budget.take(60) && !budget.take(41) && budget.take(40));
        assert!(!budget.take(u64::MAX));
        budget.give_back(60);
        assert!(budget.take(60));
    }

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total("nonsense"), None);
        assert!(MemoryBudget::of_this_machine().limit() > 0);
    }

    #[test]
    fn limits_stand_in_the_group_and_above_it() {
        let v1 = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max", v1]);
        let files = limit_files("1:cpu:/x\n0::/a.slice/b.service\n");
        let expected = ["/a.slice/b.service", "/a.slice", ""].map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
        assert_eq!(files[..3], expected);
        assert_eq!(files[3], v1);
    }
}
