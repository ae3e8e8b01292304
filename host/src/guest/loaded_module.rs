//! From a file to something that can be instantiated: read, recognise, compile or take from the cache, link, try once.
//!
//! A [`LoadedModule`] never changes. Whatever can be wrong with a module is found here, before any request meets it; the last gate
//! makes one instance of it and throws it away. Loading takes as long as compiling takes and belongs on no worker. At start-up this
//! process compiles by itself; while it serves, [`Compiler`] has it done by another.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use astra_server::Executor;
use sha2::{Digest as _, Sha256};

use super::{
    code::Code,
    engine::{self, CacheMode, Calls, Engine, World},
    granted::Granted,
    grants::Grants,
    instance::{self, State},
    instance_size,
    limits::Limits,
    load_error::LoadError,
    memory::{self, ModuleMemories, Split},
    memory_budget::MemoryBudget,
    module::{self, Kind, ModuleFile, ModuleInfo},
    program::Program,
    stdio::{GuestOutput, Stream},
};
use crate::compiler::{CompileError, Compiler, MachineCode};

/// How long the first instance may take to start.
const GATE: Duration = Duration::from_secs(10);
/// What a precompiled module ends with. Before this stand machine code, its memory's data, their length (eight bytes) and the SHA-256 of
/// all that.
const DATA_BEHIND: &[u8] = b"astra-host:data";

/// One loaded, immutable module.
pub struct LoadedModule {
    engine: Engine,
    program: Program,
    memories: ModuleMemories,
    info: ModuleInfo,
    compiled: Compiled,
    code_size: u64,
}

/// Where the machine code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiled {
    /// From the cache.
    Cached,
    /// From the compiler, in this time.
    Took(Duration),
    /// From the file itself.
    Precompiled,
}

impl std::fmt::Display for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cached => f.write_str("cached"),
            Self::Precompiled => f.write_str("precompiled"),
            Self::Took(time) => write!(f, "compiled in {} ms", time.as_millis()),
        }
    }
}

impl LoadedModule {
    /// Checks the module in a file and makes it ready to serve, compiling it here and now.
    ///
    /// # Errors
    /// It cannot be served; the error says why and what to do.
    pub fn open(engine: &Engine, path: &Path) -> Result<Self, LoadError> {
        Self::load(engine, ModuleFile::read(path)?, false, None)
    }

    /// Checks a module and makes it ready to serve. `trust_precompiled` also accepts machine code, which cannot be
    /// checked: the operator vouches for it. `compiler` compiles in a process of its own, this one does if there is none.
    ///
    /// # Errors
    /// It cannot be served; the error says why and what to do.
    pub(crate) fn load(
        engine: &Engine,
        file: ModuleFile,
        trust_precompiled: bool,
        compiler: Option<&Compiler>,
    ) -> Result<Self, LoadError> {
        let ModuleFile { path, bytes, mut info } = file;
        let path = path.as_path();
        info.require_served(path)?;
        let world = |calls| engine.world(calls).map_err(|source| LoadError::Engine { path: path.to_owned(), source });
        let (code, world, compiled, split) = match info.kind {
            Kind::Precompiled if trust_precompiled => {
                let parts = precompiled_parts(&bytes).and_then(|(code, data)| Some((code, data_of(data)?)));
                let (machine_code, data) = parts.ok_or_else(|| LoadError::Precompiled {
                    path: path.to_owned(),
                    reason: "it is not as `astra-host compile` has written it".to_owned(),
                })?;
                let blocking = world(Calls::Blocking)?;
                let (code, world) = match deserialize(blocking, machine_code) {
                    Ok(code) => (code, blocking),
                    // It does not say which world it is for; each refuses what is for the other.
                    Err(_) => {
                        let concurrent = world(Calls::Concurrent)?;
                        let code = deserialize(concurrent, machine_code);
                        let misfit =
                            |error| misfit(path, &error, |path, reason| LoadError::Precompiled { path, reason });
                        (code.map_err(misfit)?, concurrent)
                    }
                };
                (code, world, Compiled::Precompiled, data)
            }
            Kind::Precompiled => return Err(LoadError::Untrusted { path: path.to_owned() }),
            _ => {
                let world = world(info.kind.calls())?;
                let (served, split) = part(path, world, &bytes)?;
                let module = split.as_ref().map_or(served, |split| &*split.module);
                let (code, compiled) = match compiler {
                    Some(compiler) => compile_apart(world, path, module, compiler)?,
                    None => compile(engine, world, path, module)?,
                };
                (code, world, compiled, split)
            }
        };
        let memories = engine.memories().of_module(split.as_ref().map(|split| &split.memory)).map_err(|error| {
            let reason = format!("its memory's first contents cannot be had in a file in memory: {error}");
            LoadError::Instantiate { path: path.to_owned(), reason }
        })?;
        if info.kind == Kind::Precompiled {
            info.imports = code.imports(&world.wasmtime);
        }
        let program = link(world, path, &code, compiled)?;
        let code_size = code.size();
        let module = Self { engine: engine.clone(), program, memories, info, compiled, code_size };
        module.try_once(path)?;
        Ok(module)
    }

    /// What is in the file.
    pub fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// Where the machine code came from.
    pub fn compiled(&self) -> Compiled {
        self.compiled
    }

    /// Bytes of machine code, with its tables and the data that the module starts with; the images that memories start with are
    /// not counted.
    pub fn code_size(&self) -> u64 {
        self.code_size
    }

    pub(crate) fn executor(&self) -> &Executor {
        self.engine.executor()
    }

    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.program.engine()
    }

    pub(crate) fn memory(&self) -> &MemoryBudget {
        self.engine.memory()
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Makes an instance on this thread, which gets its memory from the module's own.
    pub(crate) fn instantiating<R>(&self, instantiate: impl FnOnce() -> R) -> R {
        self.memories.during(instantiate)
    }

    /// The gate: one instance, made and thrown away.
    fn try_once(&self, path: &Path) -> Result<(), LoadError> {
        let limits = Limits { deadline: GATE, memory: self.engine.max_memory(), ..Limits::default() };
        let respond = Box::new(|_| ());
        let granted = Arc::new(Granted::new(&"".into(), Grants::default(), self.executor()));
        let state = State::new(self.memory(), &granted, &limits, Arc::new(Silence), Arc::default(), false, respond);
        let mut store = instance::store(self.engine(), state);
        let result = self.engine.while_ticking(|| self.instantiating(|| self.program.try_once(&mut store)));
        result.map_err(|error| misfit(path, &error, |path, reason| LoadError::Instantiate { path, reason }))
    }
}

impl std::fmt::Debug for LoadedModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedModule")
            .field("info", &self.info)
            .field("compiled", &self.compiled)
            .finish_non_exhaustive()
    }
}

/// What there is to do with a file before it is compiled: what wasmtime allocates for an instance is bounded here, a component that only wraps
/// a core module is unwrapped, and the data is taken out. Returns what is served, and that without its data. What is malformed is left to
/// compiling.
fn part<'a>(path: &Path, world: &World, bytes: &'a [u8]) -> Result<(&'a [u8], Option<Split<'a>>), LoadError> {
    match instance_size::instance_size(bytes) {
        Ok(size) if size > instance_size::MOST => {
            let (size, most) = (size >> 20, instance_size::MOST >> 20);
            let reason = format!(
                "an instance of it takes {size} MiB beside its memory and tables, for its functions, globals and segments, and may take {most}"
            );
            Err(LoadError::Instantiate { path: path.to_owned(), reason })
        }
        _ => {
            let served = world.direct.module_in(bytes).unwrap_or(bytes);
            Ok((served, memory::split(served).ok().flatten()))
        }
    }
}

/// Compiles a module ahead of time, for `load` with `trust_precompiled` on a machine and host like this one.
///
/// # Errors
/// It could not be served either.
pub fn precompile(engine: &Engine, path: &Path) -> Result<Vec<u8>, LoadError> {
    let ModuleFile { bytes, info, .. } = ModuleFile::read(path)?;
    info.require_served(path)?;
    let world = engine.world(info.kind.calls());
    let world = world.map_err(|source| LoadError::Engine { path: path.to_owned(), source })?;
    let (served, split) = part(path, world, &bytes)?;
    let module = split.as_ref().map_or(served, |split| &*split.module);
    let mut parts = Code::precompile(&world.wasmtime, module)
        .map_err(|error| misfit(path, &error, |path, reason| LoadError::Compile { path, reason }))?;
    let data = split.map_or_else(Vec::new, |split| split.data_module(served));
    parts.extend_from_slice(&data);
    parts.extend_from_slice(&(data.len() as u64).to_le_bytes());
    parts.extend_from_slice(&Sha256::digest(&parts));
    parts.extend_from_slice(DATA_BEHIND);
    Ok(parts)
}

/// Machine code, and the module behind it that has its data, which is nothing if there is none; unless the file was damaged.
fn precompiled_parts(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (whole, digest) = file.strip_suffix(DATA_BEHIND)?.split_last_chunk::<32>()?;
    let (rest, length) = whole.split_last_chunk()?;
    if Sha256::digest(whole)[..] != digest[..] {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(rest.len().checked_sub(length)?)
}

/// The data in such a module; `Some(None)` if there is none.
fn data_of(module: &[u8]) -> Option<Option<Split<'_>>> {
    if module.is_empty() { Some(None) } else { memory::split(module).ok().flatten().map(Some) }
}

/// What the process that [`Compiler`] starts does with a module: machine code for this version of us, with the settings of all our
/// engines, and whether it was in the cache.
///
/// # Errors
/// It is invalid, or uses a feature that is off; or there is no memory.
pub(crate) fn compile_for_host(cache: CacheMode, bytes: &[u8]) -> wasmtime::Result<(Vec<u8>, bool)> {
    let kind = module::kind(bytes)?;
    let (engine, cache) = engine::for_compiling(kind.calls(), cache)?;
    let code = Code::compile(&engine, bytes)?;
    Ok((code.serialize()?, cache.is_some_and(|cache| cache.cache_hits() > 0)))
}

fn compile_apart(world: &World, path: &Path, bytes: &[u8], compiler: &Compiler) -> Result<(Code, Compiled), LoadError> {
    let MachineCode { code, cached, took } = compiler.compile(bytes).map_err(|error| {
        let path = path.to_owned();
        match error {
            CompileError::Timeout(timeout) => LoadError::CompileTimeout { path, timeout },
            CompileError::Memory(memory) => LoadError::CompileMemory { path, memory },
            CompileError::Other(reason) => LoadError::Compile { path, reason },
        }
    })?;
    let code = deserialize(world, &code)
        .map_err(|error| misfit(path, &error, |path, reason| LoadError::Compile { path, reason }))?;
    Ok((code, if cached { Compiled::Cached } else { Compiled::Took(took) }))
}

fn compile(engine: &Engine, world: &World, path: &Path, bytes: &[u8]) -> Result<(Code, Compiled), LoadError> {
    let _one_at_a_time = engine.compiling().lock().unwrap_or_else(PoisonError::into_inner);
    let hits = || engine.cache().map_or(0, wasmtime::Cache::cache_hits);
    let (hits_before, started) = (hits(), Instant::now());
    let code = Code::compile(&world.wasmtime, bytes)
        .map_err(|error| misfit(path, &error, |path, reason| LoadError::Compile { path, reason }))?;
    let compiled = if hits() > hits_before { Compiled::Cached } else { Compiled::Took(started.elapsed()) };
    Ok((code, compiled))
}

#[allow(unsafe_code, reason = "machine code cannot be checked")]
fn deserialize(world: &World, bytes: &[u8]) -> wasmtime::Result<Code> {
    // SAFETY: the callers pass only two things. Files for which the operator has said `--trust-precompiled`, that is, that they come
    // unchanged from `astra-host compile`. And what our own program, started by ourselves (`compiler.rs`), has written to a pipe
    // whose other end nobody but it has: it has made the code as `compile` below would have, so it is no worse than that.
    // wasmtime checks version, target and settings; nobody can check the code.
    unsafe { Code::deserialize(&world.wasmtime, bytes) }
}

fn link(world: &World, path: &Path, code: &Code, compiled: Compiled) -> Result<Program, LoadError> {
    code.link(world).map_err(|error| {
        let (path, reason) = (path.to_owned(), format!("{error:#}"));
        match compiled {
            Compiled::Precompiled => LoadError::Precompiled { path, reason },
            Compiled::Cached | Compiled::Took(_) => LoadError::Link { path, reason },
        }
    })
}

/// What to say when wasmtime refuses a module: the key to change if it only wants more memory than it may have, `other` if not.
fn misfit(path: &Path, error: &wasmtime::Error, other: fn(PathBuf, String) -> LoadError) -> LoadError {
    let (path, reason) = (path.to_owned(), format!("{error:#}"));
    // wasmtime has no type for it.
    match reason.contains("memory minimum size") {
        true => LoadError::DoesNotFit { path, reason, key: "max-memory" },
        false => other(path, reason),
    }
}

/// Nobody reads what a module prints while it is tried.
struct Silence;

impl GuestOutput for Silence {
    fn line(&self, _stream: Stream, _line: &str) {}

    fn dropped(&self, _lines: u64, _bytes: u64) {}
}
