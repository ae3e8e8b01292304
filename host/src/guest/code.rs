//! Machine code: a component's, or that of a program which is a core module. wasmtime has a type for each.

use std::collections::HashSet;

use wasmtime::{Engine, Module, Precompiled, Result, component::Component};

use super::{engine::World, program::Program};

/// What is compiled, and not linked yet.
pub(crate) enum Code {
    Component(Component),
    Module(Module),
}

impl Code {
    /// Compiles a component or module, or takes the code from the engine's cache.
    ///
    /// # Errors
    /// It is invalid, or uses a feature that is off.
    pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Self> {
        Ok(match wasmparser::Parser::is_core_wasm(bytes) {
            true => Self::Module(Module::from_binary(engine, bytes)?),
            false => Self::Component(Component::from_binary(engine, bytes)?),
        })
    }

    /// The same ahead of time: bytes for [`deserialize`](Self::deserialize).
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub(crate) fn precompile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>> {
        match wasmparser::Parser::is_core_wasm(bytes) {
            true => engine.precompile_module(bytes),
            false => engine.precompile_component(bytes),
        }
    }

    /// Bytes for [`deserialize`](Self::deserialize).
    ///
    /// # Errors
    /// wasmtime's.
    pub(crate) fn serialize(&self) -> Result<Vec<u8>> {
        match self {
            Self::Component(component) => component.serialize(),
            Self::Module(module) => module.serialize(),
        }
    }

    /// The code in `bytes`.
    ///
    /// # Errors
    /// It is of another version of wasmtime, another target, or another world.
    ///
    /// # Safety
    /// The bytes must be what [`serialize`](Self::serialize) has made, unchanged: code cannot be checked.
    #[allow(unsafe_code, reason = "passes its caller's promise on")]
    pub(crate) unsafe fn deserialize(engine: &Engine, bytes: &[u8]) -> Result<Self> {
        Ok(match Engine::detect_precompiled(bytes) {
            // SAFETY: promised by the caller.
            Some(Precompiled::Module) => Self::Module(unsafe { Module::deserialize(engine, bytes)? }),
            // SAFETY: promised by the caller.
            _ => Self::Component(unsafe { Component::deserialize(engine, bytes)? }),
        })
    }

    /// What it imports, by the names that a file has for it.
    pub(crate) fn imports(&self, engine: &Engine) -> Vec<String> {
        match self {
            Self::Component(component) => {
                component.component_type().imports(engine).map(|(name, _)| name.to_owned()).collect()
            }
            // Of what a component wraps they are the component's: interfaces, each once. No others are named with a colon.
            Self::Module(module) => {
                let names = module.imports().map(|import| match import.module().contains(':') {
                    true => import.module().to_owned(),
                    false => format!("{}::{}", import.module(), import.name()),
                });
                let mut seen = HashSet::new();
                names.filter(|name| seen.insert(name.clone())).collect()
            }
        }
    }

    /// Bytes of machine code, with its tables and the data that it starts with.
    pub(crate) fn size(&self) -> u64 {
        let range = match self {
            Self::Component(component) => component.image_range(),
            Self::Module(module) => module.image_range(),
        };
        (range.end.addr() - range.start.addr()) as u64
    }

    /// Gives it what it imports.
    ///
    /// # Errors
    /// It imports something else, or exports nothing that is served.
    pub(crate) fn link(&self, world: &World) -> Result<Program> {
        match self {
            Self::Component(component) => Program::new(world.linker.instantiate_pre(component)?),
            Self::Module(module) => Ok(match world.direct.link(module)? {
                Some(handler) => Program::Direct(handler),
                None => Program::CgiModule(world.modules.instantiate_pre(module)?),
            }),
        }
    }
}
