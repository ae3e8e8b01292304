//! Programs for WASI 0.1, which are core modules, as components: so that there is one linker for all, and one way to wait.
//!
//! The translation is wasmtime's own adapter, put around the module by the library that toolchains use for it. Pure.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use super::module::Kind;

/// The component in a file of this kind.
///
/// # Errors
/// The core module cannot be made one; says why.
pub(crate) fn component<'a>(kind: &Kind, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    if *kind != Kind::CommandModule {
        return Ok(Cow::Borrowed(bytes));
    }
    let adapter = (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER);
    let encoder = ComponentEncoder::default().module(bytes);
    let encoder = encoder.and_then(|encoder| encoder.adapter(adapter.0, adapter.1));
    // What it makes is validated when it is compiled.
    let component = encoder.and_then(|encoder| encoder.validate(false).encode());
    component.map(Cow::Owned).map_err(|error| format!("{error:#}"))
}
