//! What one request may use: time, CPU time, memory and handles.
//!
//! [`Limits`] is what the configuration says; [`Clock`] and [`Memory`] keep count for one request, on the worker that runs
//! its guest. Nothing here acts: `instance.rs` asks at every tick and `blocking.rs` at every wait, both the same clock.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use wasmtime::ResourceLimiter;

use super::{
    cpu_time::CpuTime,
    memory::NO_MEMORY,
    memory_budget::MemoryBudget,
    watch::{CutBy, Watch},
};

/// Entries that a table may have. Interpreters compiled to Wasm have tens of thousands.
const TABLE_ENTRIES: usize = 100_000;
/// Tables that one guest may have, which may be many core instances.
const TABLES: usize = 60;
/// Linear memories that one guest may have, each of which takes as much address space as 32 bits reach.
const MEMORIES: usize = 4;
/// Core instances that one guest may be: a Rust guest is three, a composed one more.
const INSTANCES: usize = 200;
/// What an entry takes, in bytes: a pointer.
const ENTRY: u64 = 8;

/// A guest may go on for so long after a response that took longer than `deadline` to end, or whose client is gone.
pub(crate) const AFTERWARDS: Duration = Duration::from_secs(1);

/// The limits of one handler's requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Time from the guest's start to its response head, running and waiting together. It counts again once the response
    /// is complete: a guest that is still busy then ends at its deadline, but not before a second has passed.
    pub deadline: Duration,
    /// Time from the guest's start to the end of its response, for guests that stream; none by default.
    pub stream_deadline: Option<Duration>,
    /// CPU time of the whole request; none by default.
    pub cpu: Option<Duration>,
    /// Memory in bytes, the sum over a guest's linear memories and tables.
    pub memory: u64,
    /// Resource handles (streams, bodies, descriptors…) that are open at a time.
    pub handles: u32,
    /// Bytes that one call may hand from the guest to the host.
    pub hostcall_bytes: usize,
    /// Random bytes that one call may ask for.
    pub random_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            stream_deadline: None,
            cpu: None,
            memory: 128 << 20,
            handles: 4096,
            hostcall_bytes: 8 << 20,
            random_bytes: 1 << 20,
        }
    }
}

/// Why a guest was cut short by the host. This is the error that a trap carries when it is the host's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Deadline,
    StreamDeadline,
    Cpu,
    ClientGone,
    Killed,
    Drained,
}

impl From<CutBy> for Cut {
    fn from(by: CutBy) -> Self {
        match by {
            CutBy::Operator => Self::Killed,
            CutBy::Drain => Self::Drained,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "`deadline` passed",
            Self::StreamDeadline => "`stream_deadline` passed",
            Self::Cpu => "`cpu` limit used up",
            Self::ClientGone => "the client went away",
            Self::Killed => "an operator ended it",
            Self::Drained => "its revision was replaced, and `drain` passed",
        })
    }
}

impl std::error::Error for Cut {}

/// How far a response is, which decides the deadline that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No head has been sent.
    Head,
    /// The head is out, the body is not complete.
    Streaming,
    /// The response is complete.
    Complete,
}

/// One request's time, and the watch that may end it at any.
pub(crate) struct Clock {
    started: Instant,
    deadline: Duration,
    stream_deadline: Option<Duration>,
    cpu_limit: Option<Duration>,
    cpu: CpuTime,
    /// When the response was first seen complete.
    completed: Option<Instant>,
    /// When the client was first seen gone after that.
    left: Option<Instant>,
    watch: Arc<Watch>,
}

impl Clock {
    pub(crate) fn start(limits: &Limits, watch: Arc<Watch>) -> Self {
        let started = Instant::now();
        Self {
            started,
            deadline: limits.deadline,
            stream_deadline: limits.stream_deadline,
            cpu_limit: limits.cpu,
            cpu: CpuTime::start(started),
            completed: None,
            left: None,
            watch,
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// When a wait in this phase must end, if ever, and what to call it then.
    pub(crate) fn until(&mut self, phase: Phase) -> Option<(Instant, Cut)> {
        match phase {
            Phase::Head => Some((self.started + self.deadline, Cut::Deadline)),
            Phase::Streaming => self.stream_deadline.map(|limit| (self.started + limit, Cut::StreamDeadline)),
            Phase::Complete => {
                let completed = *self.completed.get_or_insert_with(Instant::now);
                Some(((self.started + self.deadline).max(completed + AFTERWARDS), Cut::Deadline))
            }
        }
    }

    /// The client is gone: how long a guest may go on that has nothing more to say to it. Not up to its deadline, since a host
    /// that shuts down cuts its guests by telling them that their clients are gone.
    ///
    /// # Errors
    /// It may not, or no longer.
    pub(crate) fn without_client(&mut self, phase: Phase) -> Result<Instant, Cut> {
        if phase != Phase::Complete {
            return Err(Cut::ClientGone);
        }
        let now = Instant::now();
        let until = *self.left.get_or_insert(now) + AFTERWARDS;
        if now < until { Ok(until) } else { Err(Cut::ClientGone) }
    }

    /// The same as [`until`](Self::until) once the client is gone.
    ///
    /// # Errors
    /// The guest may not go on.
    pub(crate) fn until_alone(&mut self, phase: Phase) -> Result<(Instant, Cut), Cut> {
        let left = self.without_client(phase)?;
        Ok(self.until(phase).filter(|(until, _)| *until < left).unwrap_or((left, Cut::ClientGone)))
    }

    /// Whether a guest that is running in this phase may go on.
    ///
    /// # Errors
    /// The limit that it has reached, or it was cut.
    pub(crate) fn check(&mut self, phase: Phase) -> Result<(), Cut> {
        self.watch.check()?;
        if let Some((until, cut)) = self.until(phase)
            && Instant::now() >= until
        {
            return Err(cut);
        }
        match self.cpu_limit {
            Some(limit) if self.cpu.used() >= limit => Err(Cut::Cpu),
            _ => Ok(()),
        }
    }

    /// The request has run for a tick, or is about to wait: from now on its CPU time can be seen from outside, and time is not taken for it.
    pub(crate) fn show_cpu(&mut self) {
        self.watch.started(self.cpu.from());
    }

    /// The request has ended: its CPU time.
    pub(crate) fn end(&mut self) -> Duration {
        self.watch.ended();
        self.cpu.used()
    }
}

/// One request's linear memories and tables. Dropped when its guest has none any more: then others may have it.
pub(crate) struct Memory {
    limit: u64,
    used: u64,
    /// What was added last, which the kernel may not have.
    last: u64,
    refused: bool,
    host: MemoryBudget,
    refused_by_host: bool,
    refused_by_machine: bool,
}

impl Memory {
    pub(crate) fn new(limit: u64, host: &MemoryBudget) -> Self {
        let host = host.clone();
        Self { limit, used: 0, last: 0, refused: false, host, refused_by_host: false, refused_by_machine: false }
    }

    /// Bytes asked for, over all memories and tables. Neither ever shrinks, so this is the peak too.
    pub(crate) fn peak(&self) -> u64 {
        self.used
    }

    /// Whether the guest has been refused memory, and how much it may have.
    pub(crate) fn refused(&self) -> Option<u64> {
        self.refused.then_some(self.limit)
    }

    /// Whether the guest has been refused memory that it may have, but not at a time when so many others have it; and how much
    /// there is for all.
    pub(crate) fn refused_by_host(&self) -> Option<u64> {
        self.refused_by_host.then_some(self.host.limit())
    }

    fn take(&mut self, more: u64) -> bool {
        let used = self.used.saturating_add(more);
        if used > self.limit {
            self.refused = true;
            return false;
        }
        if !self.host.take(more) {
            self.refused_by_host = true;
            return false;
        }
        self.used = used;
        true
    }

    /// Whether the guest may have had what it asked for, but the kernel had no more of it.
    pub(crate) fn refused_by_machine(&self) -> bool {
        self.refused_by_machine
    }
}

/// Whether the kernel has no more memory, which is no fault of a guest's. wasmtime says so in two ways, and passes on what we say.
pub(crate) fn is_of_machine(error: &wasmtime::Error) -> bool {
    let kind = error.downcast_ref().map(io::Error::kind);
    let ours = error.downcast_ref::<String>().is_some_and(|text| text == NO_MEMORY);
    ours || kind == Some(io::ErrorKind::OutOfMemory) || error.downcast_ref() == Some(&Errno::NOMEM)
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.host.give_back(self.used);
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.last = desired.saturating_sub(current) as u64;
        Ok(self.take(self.last))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        Ok(desired <= TABLE_ENTRIES && self.take(more.saturating_mul(ENTRY)))
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        if !is_of_machine(&error) {
            self.refused = true;
            return Ok(());
        }
        self.refused_by_machine = true;
        self.host.give_back(self.last);
        self.used -= std::mem::take(&mut self.last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_outlives_the_deadline_and_a_head_does_not() {
        let mut clock = Clock::start(&Limits { deadline: Duration::ZERO, ..Limits::default() }, Arc::default());
        assert_eq!(clock.check(Phase::Head), Err(Cut::Deadline));
        assert_eq!(clock.check(Phase::Streaming), Ok(()));
        assert_eq!(clock.check(Phase::Complete), Ok(()));
    }

    #[test]
    fn a_stream_ends_at_its_own_deadline() {
        let limits = Limits { stream_deadline: Some(Duration::ZERO), ..Limits::default() };
        assert_eq!(Clock::start(&limits, Arc::default()).check(Phase::Streaming), Err(Cut::StreamDeadline));
    }

    #[test]
    fn a_client_that_leaves_cancels_what_it_waits_for_at_once() {
        let mut clock = Clock::start(&Limits::default(), Arc::default());
        assert_eq!(clock.without_client(Phase::Head), Err(Cut::ClientGone));
        assert_eq!(clock.without_client(Phase::Streaming), Err(Cut::ClientGone));
        let until = clock.without_client(Phase::Complete).expect("nothing is missing for the client");
        assert_eq!(clock.without_client(Phase::Complete), Ok(until), "the time runs from the first time on");
        assert_eq!(clock.until_alone(Phase::Streaming), Err(Cut::ClientGone));
        assert_eq!(clock.until_alone(Phase::Complete), Ok((until, Cut::ClientGone)));
        clock.deadline = Duration::ZERO;
        clock.completed = clock.started.checked_sub(Duration::from_millis(1));
        let deadline = clock.until(Phase::Complete).expect("there is one");
        assert_eq!(clock.until_alone(Phase::Complete), Ok(deadline), "whichever is sooner");
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut memory = Memory::new(100, &MemoryBudget::new(u64::MAX));
        assert!(memory.memory_growing(0, 60, None).expect("never an error"));
        assert!(!memory.memory_growing(0, 60, None).expect("never an error"));
        assert_eq!((memory.peak(), memory.refused()), (60, Some(100)));
    }

    #[test]
    fn memory_that_the_kernel_does_not_have_is_not_the_guests() {
        let host = MemoryBudget::new(100);
        let (mut one, mut other) = (Memory::new(80, &host), Memory::new(80, &host));
        assert!(one.memory_growing(0, 20, None).expect("never an error"));
        assert!(one.memory_growing(20, 60, None).expect("never an error"));
        one.memory_grow_failed(Errno::NOMEM.into()).expect("never an error");
        assert_eq!((one.peak(), one.refused(), one.refused_by_machine()), (20, None, true));
        assert!(other.memory_growing(0, 80, None).expect("never an error"));
        assert!(is_of_machine(&io::Error::from(Errno::NOMEM).into()));
        one.memory_grow_failed(wasmtime::format_err!("more than its type allows")).expect("never an error");
        assert_eq!(one.refused(), Some(80));
    }

    #[test]
    fn a_table_has_no_more_entries_than_allowed_and_is_memory() {
        let host = MemoryBudget::new(1 << 20);
        let mut memory = Memory::new(1 << 20, &host);
        assert!(memory.table_growing(0, TABLE_ENTRIES, None).expect("never an error"));
        assert!(!memory.table_growing(TABLE_ENTRIES, TABLE_ENTRIES + 1, None).expect("never an error"));
        assert_eq!((memory.peak(), memory.refused()), (TABLE_ENTRIES as u64 * ENTRY, None));
        assert!(!memory.table_growing(0, TABLE_ENTRIES, None).expect("never an error"));
        assert_eq!(memory.refused(), Some(1 << 20));
        drop(memory);
        assert!(host.take(1 << 20));
    }

    #[test]
    fn memory_of_a_guest_that_has_ended_is_there_for_others() {
        let host = MemoryBudget::new(100);
        let (mut one, mut other) = (Memory::new(80, &host), Memory::new(80, &host));
        assert!(one.memory_growing(0, 60, None).expect("never an error"));
        assert!(!other.memory_growing(0, 60, None).expect("never an error"));
        assert_eq!((other.peak(), other.refused(), other.refused_by_host()), (0, None, Some(100)));
        drop(one);
        assert!(other.memory_growing(0, 60, None).expect("never an error"));
    }
}
