//! Guests of WASI 0.2 that are called without the component model's machinery: most of those that Rust's toolchain makes.
//!
//! Such a component is one core module that it wraps: it gives the module the host's functions, by the same names, and exports one of its
//! functions. wasmtime makes three instances of that, with tables for its handles, and goes through code of its own at each call. Here the module
//! is instantiated by itself (`wrapped_module.rs` says which components can be, exactly), and the host's functions do what that code does
//! (`abi.rs`, `types.rs`), on the same implementations (`http.rs`, `wasi.rs`, by name in `functions.rs`). All others stay components; tests run the same
//! guests both ways. Called on the worker of the request.

use wasmtime::{Extern, InstancePre, Linker, Module, ModuleExport, Result, Store, component::Resource};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use super::{core_module, instance::State};

mod abi;
mod core_modules;
mod functions;
mod http;
mod types;
mod wasi;
mod wrapped_module;

pub(crate) use abi::Instance;
use core_modules::MEMORY;
pub(crate) use functions::Functions;
use wrapped_module::REALLOC;

/// What is told of machine code that is not of a module which `wrapped_module.rs` has looked at.
const NO_HANDLER: &str = "it does not export a handler and a memory";

/// All functions that such guests may import.
pub(crate) fn functions() -> Functions {
    let mut functions = Functions::default();
    http::add(&mut functions);
    wasi::add(&mut functions);
    functions
}

impl Functions {
    /// The core module that is to be compiled in a component's stead, if there is one that has all it imports from here. What is malformed is
    /// left to compiling.
    pub(crate) fn module_in<'a>(&self, file: &'a [u8]) -> Option<&'a [u8]> {
        let wrapped = wrapped_module::wrapped_module(file).ok()??;
        let is_here = |import: &wrapped_module::Import<'_>| {
            self.get(import.interface, import.name).is_some_and(|function| function.is_of(&import.ty))
        };
        wrapped.imports.iter().all(is_here).then_some(wrapped.module)
    }

    /// Gives such a module what it imports; none if it exports no handler.
    ///
    /// # Errors
    /// It imports something else.
    pub(crate) fn link(&self, module: &Module) -> Result<Option<Handler>> {
        let mut exports = module.exports().map(|export| export.name());
        let Some(handler) = exports.find(|name| is_handler(name)) else { return Ok(None) };
        if module.get_export(core_module::START).is_some() {
            return Ok(None);
        }
        let mut linker = Linker::new(module.engine());
        linker.allow_shadowing(true); // a module may import the same twice
        for import in module.imports() {
            if let Some(function) = self.get(import.module(), import.name()) {
                function.define(&mut linker, import.module(), import.name())?;
            }
        }
        let export = |name| module.get_export_index(name);
        let (Some(handle), Some(memory)) = (export(handler), export(MEMORY)) else { wasmtime::bail!(NO_HANDLER) };
        let realloc = export(REALLOC);
        Ok(Some(Handler { pre: linker.instantiate_pre(module)?, handle, memory, realloc }))
    }
}

/// Whether a core module's export is a handler, of whatever version.
fn is_handler(export: &str) -> bool {
    export.starts_with("wasi:http/incoming-handler@") && export.ends_with("#handle")
}

/// A `wasi:http/incoming-handler` that is linked.
pub(crate) struct Handler {
    pre: InstancePre<State>,
    handle: ModuleExport,
    memory: ModuleExport,
    realloc: Option<ModuleExport>,
}

/// One that is instantiated.
pub(crate) struct Guest(wasmtime::TypedFunc<(u32, u32), ()>);

impl Handler {
    pub(crate) fn engine(&self) -> &wasmtime::Engine {
        self.pre.module().engine()
    }

    /// Makes an instance, and has the host's functions work on it.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn instantiate(&self, store: &mut Store<State>) -> Result<Guest> {
        let instance = self.pre.instantiate(&mut *store)?;
        let mut export = |export| instance.get_module_export(&mut *store, export);
        let memory = export(&self.memory).and_then(Extern::into_memory);
        let handle = export(&self.handle).and_then(Extern::into_func);
        let realloc = self.realloc.as_ref().and_then(export).and_then(Extern::into_func);
        let (Some(memory), Some(handle)) = (memory, handle) else { wasmtime::bail!(NO_HANDLER) };
        store.data_mut().direct = Some(Instance::new(memory, realloc));
        Ok(Guest(handle.typed(&*store)?))
    }
}

impl Guest {
    /// Hands it a request.
    ///
    /// # Errors
    /// It has trapped, or was cut.
    pub(crate) fn call_handle(
        &self,
        store: &mut Store<State>,
        request: &Resource<HostIncomingRequest>,
        outparam: &Resource<HostResponseOutparam>,
    ) -> Result<()> {
        self.0.call(store, (abi::handle_of(request), abi::handle_of(outparam)))
    }
}
