//! wasmtime, set up for one purpose: many short lives of few guests.
//!
//! Epochs for deadlines, memories of our own (`memory/`), and a cache of compiled code. There are two [`World`]s: guests
//! of WASI 0.2 need no fibers (`concurrency_support(false)` and plain `call`), which are half of what a short request
//! costs; those of WASI 0.3 do (`stacks.rs`), and theirs is made when the first of them is loaded. An [`Engine`] also owns
//! the one Tokio runtime, with one worker, that wasmtime-wasi's files need (its clock too, for guests that outlive their
//! clients); workers enter it for their life and never block in it. All of it is made at start-up and shared by all
//! threads.

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
use wasmtime::{Cache, CacheConfig, Config, InstanceAllocationStrategy, component::Linker};

use super::{
    cache, direct,
    instance::State,
    linker,
    memory::{Memories, PageMap},
    memory_budget::MemoryBudget,
    preview1,
    runtime::Runtime,
    stacks::Stacks,
};

/// The stack that a guest may use, in bytes.
const WASM_STACK: usize = 512 * 1024;

/// The stack that a guest of WASI 0.3 has, of which it may use [`WASM_STACK`].
const GUEST_AND_HOST_STACK: usize = WASM_STACK + 512 * 1024;

/// What is told where guests' memories cannot be scanned.
const NO_SCAN: &str = "all of a guest's memory is copied back after each request, which takes longer the more it has: the kernel does not tell what was written, which takes Linux 6.7 or newer, and /proc/self/pagemap";

/// How exactly deadlines are kept where nobody is served yet.
const TRIAL_TICK: Duration = Duration::from_millis(5);

/// How an [`Engine`] is made.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Stacks that guests of WASI 0.3 can have at a time. Each needs one for each of its calls that is going on.
    pub stacks: u32,
    /// Most bytes that any linear memory can have.
    pub max_memory: u64,
    /// Most bytes of linear memory that all guests may have together; by default 70 % of what the control group or the
    /// machine has.
    pub memory_budget: Option<u64>,
    /// How a memory is made fresh; by default by [`Scan`](Reset::Scan) where the kernel can.
    pub reset: Option<Reset>,
    /// Whether compiled code is kept.
    pub cache: CacheMode,
    /// What runs guests' requests to others: the server's whose workers run the guests.
    pub executor: Executor,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            stacks: 1024,
            max_memory: 128 << 20,
            memory_budget: None,
            reset: None,
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
    /// The kernel is asked which pages were written (Linux 6.7), and those are copied back.
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
    /// `reset = "scan"` where the kernel does not tell what was written.
    #[error("`reset = \"scan\"` needs Linux 6.7 or newer, and /proc/self/pagemap; use `copy`")]
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
    memories: Memories,
    notes: Vec<String>,
}

/// How guests of a kind are compiled, and what they may import.
pub(crate) struct World {
    pub(crate) wasmtime: wasmtime::Engine,
    pub(crate) linker: Linker<State>,
    /// For programs that are core modules.
    pub(crate) modules: wasmtime::Linker<State>,
    /// For core modules that are called in the stead of components which wrap them.
    pub(crate) direct: direct::Functions,
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
    /// Makes the engine and its runtime.
    ///
    /// # Errors
    /// The options cannot be had on this machine. A cache that cannot be had is a [note](Self::notes), not an error.
    pub fn new(options: &EngineOptions) -> Result<Self, EngineError> {
        let mut notes = Vec::new();
        let pages = match (options.reset, PageMap::open()) {
            (Some(Reset::Copy), _) => None,
            (Some(Reset::Scan), None) => return Err(EngineError::ScanUnsupported),
            (None, None) => {
                notes.push(NO_SCAN.to_owned());
                None
            }
            (_, pages) => pages,
        };
        let cache = open_cache(options.cache, &mut notes);
        let memory = options.memory_budget.map_or_else(MemoryBudget::of_this_machine, MemoryBudget::new);
        let memories = Memories::new(memory.limit(), pages);
        let blocking = World::new(Calls::Blocking, options, &memories, cache.clone()).map_err(EngineError::Wasmtime)?;
        let runtime = Runtime::start().map_err(EngineError::Runtime)?;
        let compiling = Mutex::new(());
        let (concurrent, options) = (OnceLock::new(), options.clone());
        Ok(Self(Arc::new(Inner { blocking, concurrent, options, runtime, cache, compiling, memory, memories, notes })))
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
        // Under the lock only one is made.
        let _one_at_a_time = self.0.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = self.0.concurrent.get() {
            return Ok(world);
        }
        let world = World::new(calls, &self.0.options, &self.0.memories, self.0.cache.clone());
        let world = world.map_err(EngineError::Wasmtime)?;
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

    pub(crate) fn memories(&self) -> &Memories {
        &self.0.memories
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
    fn new(calls: Calls, options: &EngineOptions, memories: &Memories, cache: Option<Cache>) -> wasmtime::Result<Self> {
        let mut config = config(calls, cache);
        config.with_host_memory(Arc::new(memories.clone()));
        if calls == Calls::Concurrent {
            config.with_host_stack(Arc::new(Stacks::new(options.stacks)));
        }
        let wasmtime = wasmtime::Engine::new(&config)?;
        let linker = linker::new(&wasmtime, calls)?;
        let modules = preview1::linker(&wasmtime)?;
        Ok(Self { wasmtime, linker, modules, direct: direct::functions() })
    }
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
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_init_cow(false) // ours are
        // Function names in traps come from the name section; addresses would double the compiled code's tables.
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(20))
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .parallel_compilation(true)
        .cache(cache);
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_starts_with_its_defaults() {
        let engine = Engine::new(&EngineOptions { cache: CacheMode::Off, ..EngineOptions::default() });
        let notes = if PageMap::open().is_some() { &[][..] } else { &[NO_SCAN.to_owned()] };
        assert_eq!(engine.expect("starts").notes(), notes);
    }
}
