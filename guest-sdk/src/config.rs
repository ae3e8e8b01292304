//! What the host's configuration tells this guest: `wasi:config/store@0.2.0-rc.1`. Natively [`crate::testing`] answers.
//!
//! It is the grant `config` of a handler, or the flag `--config-var`. Unlike the environment it can be had by guests of every toolchain that
//! knows WASI, and a guest that does not ask for it does not import it.

#[cfg(not(target_family = "wasm"))]
use crate::testing as store;
#[cfg(target_family = "wasm")]
use crate::wasm::config as store;

/// The value of a name, if it has one.
///
/// ```
/// use guest_sdk::config;
///
/// if config::var("feature_x").as_deref() == Some("on") {
///     // …
/// }
/// ```
///
/// A host that cannot say (its own source of values fails) counts as none; why is written to stderr, which the host logs. Natively there
/// is what a test has set ([`testing::set_config`](crate::testing::set_config)).
pub fn var(name: &str) -> Option<String> {
    store::config_var(name)
}

/// All names and their values, in the host's order.
pub fn all() -> Vec<(String, String)> {
    store::config_all()
}
