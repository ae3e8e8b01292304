//! wasmtime, set up for one purpose: many short lives of few guests.
//!
//! Epochs for deadlines, a pool of instance slots whose memory is copy-on-write images, and a cache of compiled code.
//! There are two [`World`]s: guests of WASI 0.2 need no fibers (`concurrency_support(false)` and plain `call`), which
//! are half of what a short request costs; those of WASI 0.3 do, and theirs is made when the first of them is loaded.
//! An [`Engine`] also owns the one Tokio runtime, with one worker, that wasmtime-wasi's files need (its clock too, for
//! guests that outlive their clients); workers enter it for their life and never block in it. All of it is made at
//! start-up and shared by all threads; the pool's shape is fixed then.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use astra_server::Executor;
use wasmtime::{
    Cache, CacheConfig, Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, component::Linker,
};

use super::{
    cache,
    instance::State,
    limits::{TABLE_ENTRIES, TABLES},
    linker,
    memory_budget::MemoryBudget,
    preview1,
    runtime::Runtime,
};

/// The stack that a guest may use, in bytes.
const WASM_STACK: usize = 512 * 1024;

/// The stack that a guest of WASI 0.3 has, of which it may use [`WASM_STACK`].
const GUEST_AND_HOST_STACK: usize = WASM_STACK + 512 * 1024;

/// Fewer slots than this and wasmtime does not divide its pools among threads.
const MIN_INSTANCES: u32 = 128;
/// A component is several core instances, each with a table or two: a Rust guest has three, a composed one more.
const CORE_INSTANCES_EACH: u32 = 20;
const MEMORIES_EACH: u32 = 2;
const TABLES_EACH: u32 = 6;
/// Memory of a free slot that stays mapped and is copied back from the image, rather than unmapped and faulted in
/// again; of a smaller guest, all of it. Python starts with 12.3 MiB, JavaScript with 9.1: unmapping a part of that,
/// with the interrupts to other cores that it takes, cost half of their rates.
const MEMORY_KEPT: u64 = 16 << 20;
const TABLE_KEPT: usize = 128 << 10;

/// How exactly deadlines are kept where nobody is served yet.
const TRIAL_TICK: Duration = Duration::from_millis(5);

/// How an [`Engine`] is made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Guests that can run or wait at a time; at least 128 are made.
    pub instances: u32,
    /// Handlers at the start: each keeps some slots for itself between requests.
    pub handlers: u32,
    /// Most bytes that any linear memory can have.
    pub max_memory: u64,
    /// Most bytes of linear memory that all guests may have together; by default 70 % of what the control group or the
    /// machine has.
    pub memory_budget: Option<u64>,
    /// How a slot is made fresh.
    pub reset: Reset,
    /// Whether compiled code is kept.
    pub cache: CacheMode,
    /// What runs guests' requests to others: the server's whose workers run the guests.
    pub executor: Executor,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            instances: 1024,
            handlers: 1,
            max_memory: 128 << 20,
            memory_budget: None,
            reset: Reset::Copy,
            cache: CacheMode::On,
            executor: Executor::default(),
        }
    }
}

/// How the memory of one request is made fresh for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// All of it is copied back from the module's image. The time grows with the guest's memory.
    Copy,
    /// The kernel is asked which pages were written (Linux 6.7). Faster, but wasmtime 48 misses pages that are swapped
    /// out or just being moved: the next request could see them (bytecodealliance/wasmtime#14357).
    Scan,
}

/// Whether compiled code is kept between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// In `$XDG_CACHE_HOME/astra-host`, `~/.cache/astra-host`, or a directory for us in the temporary one.
    On,
    /// Not at all.
    Off,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// `reset = "scan"` on a machine with paging space.
    #[error(
        "`reset = \"scan\"` is refused because paging space is in use (/proc/swaps): a page that is swapped out would be seen by the next request; use `copy`"
    )]
    ScanWithSwap,
    /// `reset = "scan"` on a kernel that cannot.
    #[error("`reset = \"scan\"` needs Linux 6.7 or newer; use `copy`")]
    ScanUnsupported,
    /// wasmtime refused its configuration.
    #[error("wasmtime cannot be set up: {0:#}")]
    Wasmtime(wasmtime::Error),
    /// The Tokio runtime could not be started.
    #[error("the runtime for files and sockets cannot be started")]
    Runtime(#[source] std::io::Error),
}

/// wasmtime and what goes with it. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    blocking: World,
    concurrent: OnceLock<World>,
    options: EngineOptions,
    runtime: Runtime,
    cache: Option<Cache>,
    /// One compilation at a time: each uses all cores, and the cache's counters belong to one of them.
    compiling: Mutex<()>,
    memory: MemoryBudget,
    notes: Vec<String>,
}

/// How guests of a kind are compiled, and what they may import.
pub(crate) struct World {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    /// For programs that are core modules.
    pub(crate) modules: wasmtime::Linker<State>,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Guests that are called and return: WASI 0.2, and 0.1.
    Blocking,
    /// Guests with tasks of their own: WASI 0.3.
    Concurrent,
}

impl Engine {
    /// Makes the engine, its pool and its runtime.
    ///
    /// # Errors
    /// The options cannot be had on this machine. A cache or a pool that cannot be had is a [note](Self::notes), not an
    /// error.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        if options.reset == Reset::Scan {
            check_scan(&std::fs::read_to_string("/proc/swaps").unwrap_or_default())?;
        }
        let mut notes = Vec::new();
        let cache = open_cache(options.cache, &mut notes);
        let memory = options.memory_budget.map_or_else(MemoryBudget::of_this_machine, MemoryBudget::new);
        let blocking = World::new(Calls::Blocking, options, &memory, cache.clone(), &mut notes)?;
        let runtime = Runtime::start().map_err(EngineError::Runtime)?;
        let compiling = Mutex::new(());
        let (concurrent, options) = (OnceLock::new(), options.clone());
        Ok(Self(Arc::new(Inner { blocking, concurrent, options, runtime, cache, compiling, memory, notes })))
    }

    /// Lets a millisecond pass for running guests: they are asked about their deadlines. To be called every millisecond
    /// while guests run.
    pub fn tick(&self) {
        self.0.blocking.wasmtime.increment_epoch();
        if let Some(concurrent) = self.0.concurrent.get() {
            concurrent.wasmtime.increment_epoch();
        }
    }

    /// Lets time pass while `f` runs: for guests that are run when nobody else ticks.
    pub(crate) fn while_ticking<R>(&self, f: impl FnOnce() -> R) -> R {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let ticker = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    thread::park_timeout(TRIAL_TICK);
                    self.tick();
                }
            });
            let _end = EndOfTicks { is_over: &is_over, ticker: ticker.thread() };
            f()
        })
    }

    /// What a thread must have entered before it runs guests.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.0.runtime.handle()
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.0.options.executor
    }

    /// The native stack that a thread needs to run guests, in bytes: the guest's and 512 KiB for host calls.
    pub fn worker_stack(&self) -> usize {
        GUEST_AND_HOST_STACK
    }

    /// What the operator should know: warnings for start-up, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The world of such guests, made if it is the first time.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn world(&self, calls: Calls) -> Result<&World, EngineError> {
        if calls == Calls::Blocking {
            return Ok(&self.0.blocking);
        }
        // Under the lock only one is made: its pool takes terabytes of address space.
        let _one_at_a_time = self.0.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = self.0.concurrent.get() {
            return Ok(world);
        }
        let mut notes = Vec::new();
        let world = World::new(calls, &self.0.options, &self.0.memory, self.0.cache.clone(), &mut notes)?;
        for note in notes {
            log::warn!("for WASI 0.3, {note}");
        }
        Ok(self.0.concurrent.get_or_init(|| world))
    }

    pub(crate) fn cache(&self) -> Option<&Cache> {
        self.0.cache.as_ref()
    }

    pub(crate) fn compiling(&self) -> &Mutex<()> {
        &self.0.compiling
    }

    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.0.memory
    }

    pub(crate) fn max_memory(&self) -> u64 {
        self.0.options.max_memory
    }
}

/// Ends a ticker, also when what it ticked for panics.
struct EndOfTicks<'a> {
    is_over: &'a AtomicBool,
    ticker: &'a thread::Thread,
}

impl Drop for EndOfTicks<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.ticker.unpark();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("notes", &self.0.notes).finish_non_exhaustive()
    }
}

/// `swaps` is what /proc/swaps says: a heading, then a line for each paging space.
fn check_scan(swaps: &str) -> Result<(), EngineError> {
    if swaps.lines().skip(1).any(|line| !line.trim().is_empty()) {
        return Err(EngineError::ScanWithSwap);
    }
    if !PoolingAllocationConfig::is_pagemap_scan_available() {
        return Err(EngineError::ScanUnsupported);
    }
    Ok(())
}

fn open_cache(mode: CacheMode, notes: &mut Vec<String>) -> Option<Cache> {
    if mode == CacheMode::Off {
        return None;
    }
    let cache = cache::directory().and_then(|(directory, note)| {
        notes.extend(note);
        let mut config = CacheConfig::new();
        config.with_directory(directory);
        Cache::new(config).map_err(|error| format!("{error:#}"))
    });
    cache.map_err(|reason| notes.push(format!("compiled modules are not cached: {reason}"))).ok()
}

impl World {
    fn new(
        calls: Calls,
        options: &EngineOptions,
        memory: &MemoryBudget,
        cache: Option<Cache>,
        notes: &mut Vec<String>,
    ) -> Result<Self, EngineError> {
        let wasmtime = start(calls, options, memory, cache, notes)?;
        let linker = linker::new(&wasmtime, calls).map_err(EngineError::Wasmtime)?;
        let modules = preview1::linker(&wasmtime).map_err(EngineError::Wasmtime)?;
        Ok(Self { wasmtime, linker, modules })
    }
}

/// With a pool if the address space for it is to be had, else without.
fn start(
    calls: Calls,
    options: &EngineOptions,
    memory: &MemoryBudget,
    cache: Option<Cache>,
    notes: &mut Vec<String>,
) -> Result<wasmtime::Engine, EngineError> {
    let mut config = config(calls, cache);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(calls, options, memory)));
    let refused = match wasmtime::Engine::new(&config) {
        Ok(engine) => return Ok(engine),
        Err(error) => error,
    };
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = wasmtime::Engine::new(&config).map_err(EngineError::Wasmtime)?;
    notes.push(format!(
        "instances are allocated one by one, which is several times slower: the address space for {} slots is refused ({:#}); lower `max-workers` or raise `ulimit -v`",
        options.instances.max(MIN_INSTANCES),
        refused,
    ));
    Ok(engine)
}

/// An engine that makes machine code for all the others and runs none: the same settings, without what only running
/// needs.
pub(crate) fn for_compiling(calls: Calls, cache: CacheMode) -> wasmtime::Result<(wasmtime::Engine, Option<Cache>)> {
    let cache = open_cache(cache, &mut Vec::new());
    Ok((wasmtime::Engine::new(&config(calls, cache.clone()))?, cache))
}

fn config(calls: Calls, cache: Option<Cache>) -> Config {
    let mut config = Config::new();
    match calls {
        Calls::Blocking => config.concurrency_support(false),
        // Host calls run on a guest's own stack here, so that it needs room for both.
        Calls::Concurrent => config.wasm_component_model_async(true).async_stack_size(GUEST_AND_HOST_STACK),
    };
    config
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .memory_init_cow(true)
        // Images in memory, not in the page cache of a file: the first touch of a page never waits for a disk.
        .force_memory_init_memfd(true)
        .memory_guaranteed_dense_image_size(256 << 20)
        // Function names in traps come from the name section; addresses would double the compiled code's tables.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(20))
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .parallel_compilation(true)
        .cache(cache);
    config
}

fn pool(calls: Calls, options: &EngineOptions, memory: &MemoryBudget) -> PoolingAllocationConfig {
    let instances = options.instances.max(MIN_INSTANCES);
    let warm_slots = warm_slots(options.handlers).min(instances);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_EACH))
        .total_memories(instances.saturating_mul(MEMORIES_EACH))
        .total_tables(instances.saturating_mul(TABLES_EACH))
        .max_core_instances_per_component(CORE_INSTANCES_EACH * 10)
        .max_memories_per_component(MEMORIES_EACH * 2)
        .max_tables_per_component(TABLES)
        // Of fibers: a system call for each, which is a quarter of the time that a start takes.
        .total_stacks(if calls == Calls::Concurrent { instances } else { 0 })
        .max_component_instance_size(16 << 20)
        .max_core_instance_size(16 << 20)
        .max_tables_per_module(8)
        .max_memories_per_module(MEMORIES_EACH)
        .table_elements(TABLE_ENTRIES)
        .max_memory_size(usize::try_from(options.max_memory).unwrap_or(usize::MAX))
        .max_unused_warm_slots(warm_slots)
        .linear_memory_keep_resident(memory_kept(memory.limit(), warm_slots))
        .table_keep_resident(TABLE_KEPT)
        .pagemap_scan(match options.reset {
            Reset::Copy => Enabled::No,
            Reset::Scan => Enabled::Yes,
        });
    pool
}

/// Free slots that keep their memory before a module that has none free takes another's. A module's own come first in
/// any case: this is what modules that come and go leave behind, 128 KiB a slot, so it is not the number of all slots.
/// And not so few that handlers which take turns take each other's slots each time.
pub(super) fn warm_slots(handlers: u32) -> u32 {
    let cores = thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    cores.saturating_mul(2).saturating_mul(handlers.max(4))
}

/// What a free slot keeps, in bytes: so much that in as many slots as keep theirs it is a tenth of what all guests may have, whatever
/// they make of it. It is not counted in the budget. After a time with more guests at once than that, there are more such slots.
fn memory_kept(budget: u64, warm_slots: u32) -> usize {
    let share = budget / 10 / u64::from(warm_slots.max(1));
    // Both fit: the most is 16 MiB. Whole pages, of any size in use.
    usize::try_from(share.min(MEMORY_KEPT) & !0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_slots_keep_a_tenth_at_the_most() {
        assert_eq!(memory_kept(u64::MAX, 16), 16 << 20);
        assert_eq!(memory_kept(16 << 30, 16), 16 << 20);
        assert_eq!(memory_kept(400 << 20, 16), 5 << 19);
        assert_eq!(memory_kept(1 << 20, 16), 0);
    }

    #[test]
    fn scanning_is_refused_where_there_is_paging_space() {
        let swaps = "Filename Type Size Used Priority\n/dev/sda2 partition 2097148 0 -2\n";
        assert!(matches!(check_scan(swaps), Err(EngineError::ScanWithSwap)));
        assert!(!matches!(check_scan("Filename Type Size Used Priority\n"), Err(EngineError::ScanWithSwap)));
    }

    #[test]
    fn an_engine_starts_with_its_defaults() {
        let engine = Engine::new(&EngineOptions { cache: CacheMode::Off, ..EngineOptions::default() });
        assert_eq!(engine.expect("starts").notes(), &[] as &[String]);
    }
}
