//! One request in one guest. Knows no sockets and no routes: of the server it uses how to wait and the body types.
//!
//! An [`Engine`] is made once, a [`LoadedModule`] once for each revision of a handler, and [`run`] takes one request
//! through a fresh instance of it on the calling thread, which must have entered [`Engine::runtime`]. The files, in the
//! order a request meets them: `module.rs`, `core_module.rs`, `draft.rs`, `load_error.rs` and `instance_size.rs` (what is in a
//! file), `engine.rs`, `linker.rs` and `cache.rs` (wasmtime), `memory/`, `stacks.rs` and `mapping.rs` (what it runs guests in),
//! `runtime.rs` (Tokio), `loaded_module.rs`, `code.rs` and `program.rs` (file to something that can be instantiated),
//! `instance.rs` and `concurrent.rs` (one request),
//! `limits.rs`, `cpu_time.rs`, `memory_budget.rs`, `descriptors.rs`, `grants.rs`, `granted.rs`, `denials.rs`, `destination.rs` and
//! `network.rs` (what it may do), `stdio.rs`, `wakers.rs`, `monotonic.rs`, `sockets.rs`, `config_store.rs`, `opening.rs`,
//! `listing.rs`, `heads.rs`, `http.rs`, `outgoing_handler.rs`, `http03.rs`, `outgoing_client.rs`, `cgi.rs` and `preview1.rs` (what each kind of
//! guest is given), `direct/` (the same for those that need no component model), `resolver.rs` and `outbound/` (what it asks of others), `blocking.rs` (where guests wait),
//! `watch.rs` (what others see of it), `body.rs` and `answer.rs` (what comes out).

mod answer;
mod blocking;
mod body;
mod cache;
mod cgi;
mod code;
mod concurrent;
mod config_store;
mod core_module;
mod cpu_time;
mod denials;
mod descriptors;
mod destination;
mod direct;
mod draft;
mod engine;
mod granted;
mod grants;
mod heads;
mod http;
mod http03;
mod instance;
mod instance_size;
mod limits;
mod linker;
mod listing;
mod load_error;
mod loaded_module;
mod mapping;
mod memory;
mod memory_budget;
mod module;
mod monotonic;
mod network;
mod opening;
mod outbound;
mod outgoing_client;
mod outgoing_handler;
mod preview1;
mod program;
mod resolver;
mod runtime;
mod sockets;
mod stacks;
mod stdio;
#[cfg(test)]
mod tests;
mod wakers;
mod watch;

#[cfg(fuzzing)]
pub use self::cgi::printed_head;
pub use self::{
    body::GuestBody,
    cgi::Gateway,
    destination::{HostPattern, OutboundRule, TcpRule},
    engine::{CacheMode, Engine, EngineError, EngineOptions, Reset},
    granted::Granted,
    grants::{DirGrant, GrantError, Grants, NetworkGrant},
    instance::{Exchange, Report, run},
    limits::Limits,
    load_error::LoadError,
    loaded_module::{Compiled, LoadedModule, precompile},
    module::{Kind, ModuleInfo, Need, inspect},
    outbound::TlsError,
    stdio::{GuestOutput, Stream},
    watch::{CutBy, Watch},
};
pub(crate) use self::{
    limits::AFTERWARDS,
    loaded_module::compile_for_host,
    module::{ModuleFile, hex, interface},
};
