//! `wasi:config`: the values that the configuration has for a handler's guests.
//!
//! It has had one form from its first draft on, under several names, of which guests in use import those below. A lookup cannot fail here.
//! Called on the worker that runs the guest; nothing here waits.

use wasmtime::{
    Result,
    component::{ComponentType, Lift, Linker, Lower},
};

use super::{grants::Grants, instance::State};

/// As it is now, Spin's, and those that wasmCloud's first version knew. Linkers compare drafts exactly.
pub(crate) const NAMES: [&str; 4] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];

/// Why there is no value; never, here.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// Adds it to a linker, under all its names.
pub(crate) fn link(linker: &mut Linker<State>) -> Result<()> {
    for name in NAMES {
        let mut store = linker.instance(name)?;
        store.func_wrap("get", |store, (key,): (String,)| {
            Ok((Ok::<_, ConfigError>(get(store.data().grants(), &key)),))
        })?;
        store.func_wrap("get-all", |store, (): ()| Ok((Ok::<_, ConfigError>(all(store.data().grants())),)))?;
    }
    Ok(())
}

pub(super) fn get(grants: &Grants, key: &str) -> Option<String> {
    grants.config.iter().find(|(name, _)| name == key).map(|(_, value)| value.expose().to_owned())
}

pub(super) fn all(grants: &Grants) -> Vec<(String, String)> {
    grants.config.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect()
}
