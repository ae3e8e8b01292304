//! What a module is once it is linked: something that answers a request, in one of six ways.
//!
//! Told by its exports, which a precompiled module still has when its file no longer says what it is. Never changes.

use wasmtime::{
    Engine, Store,
    component::{Component, InstancePre},
};
use wasmtime_wasi::{p2::bindings::sync as p2, p3::bindings as p3};
use wasmtime_wasi_http::{p2::bindings::sync as http02, p3::bindings as http03};

use super::{
    concurrent,
    direct::Handler,
    engine::Calls,
    instance::State,
    module::{self, Kind},
};

/// A module that can be instantiated, by what it is then asked to do.
pub(crate) enum Program {
    /// `wasi:http/incoming-handler` of WASI 0.2 in a core module, which only comes out of a component that wraps it: by itself such a file
    /// is not served.
    Direct(Handler),
    /// `wasi:http/incoming-handler` of WASI 0.2.
    Http(http02::ProxyPre<State>),
    /// `wasi:http/handler` of WASI 0.3.
    Http03(http03::ServicePre<State>),
    /// `wasi:cli/run` of WASI 0.2.
    Cgi(p2::CommandPre<State>),
    /// `wasi:cli/run` of WASI 0.3.
    Cgi03(p3::CommandPre<State>),
    /// `_start` of a core module, for WASI 0.1.
    CgiModule(wasmtime::InstancePre<State>),
}

impl Program {
    /// # Errors
    /// It has none of the exports that are served.
    pub(crate) fn new(pre: InstancePre<State>) -> wasmtime::Result<Self> {
        match kind(pre.component()) {
            Kind::HttpHandler { .. } => Ok(Self::Http(http02::ProxyPre::new(pre)?)),
            Kind::HttpHandler03 { .. } => Ok(Self::Http03(http03::ServicePre::new(pre)?)),
            kind @ Kind::Command { .. } => Ok(match kind.calls() {
                Calls::Blocking => Self::Cgi(p2::CommandPre::new(pre)?),
                Calls::Concurrent => Self::Cgi03(p3::CommandPre::new(pre)?),
            }),
            _ => wasmtime::bail!("it exports neither an HTTP handler nor `wasi:cli/run`"),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::Direct(handler) => handler.engine(),
            Self::Http(pre) => pre.engine(),
            Self::Http03(pre) => pre.engine(),
            Self::Cgi(pre) => pre.engine(),
            Self::Cgi03(pre) => pre.engine(),
            Self::CgiModule(pre) => pre.module().engine(),
        }
    }

    /// Makes an instance and throws it away.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn try_once(&self, store: &mut Store<State>) -> wasmtime::Result<()> {
        match self {
            Self::Direct(handler) => handler.instantiate(store).map(drop),
            Self::Http(pre) => pre.instance_pre().instantiate(store).map(drop),
            Self::Cgi(pre) => pre.instance_pre().instantiate(store).map(drop),
            Self::CgiModule(pre) => pre.instantiate(store).map(drop),
            Self::Http03(pre) => try_concurrently(pre.instance_pre(), store),
            Self::Cgi03(pre) => try_concurrently(pre.instance_pre(), store),
        }
    }
}

fn try_concurrently(pre: &InstancePre<State>, store: &mut Store<State>) -> wasmtime::Result<()> {
    concurrent::instantiate(store, async |store| pre.instantiate_async(store).await.map(drop))
}

/// What a compiled component is.
fn kind(component: &Component) -> Kind {
    let types = component.component_type();
    let names: Vec<_> = types.exports(component.engine()).map(|(name, _)| name).collect();
    module::component_kind(&names)
}
