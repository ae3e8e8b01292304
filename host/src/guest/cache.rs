//! Where compiled modules are kept between runs.
//!
//! What lies in the cache is executed, so its directory must be ours alone ([`private_dir`]). If none can be had the cache is
//! off and start-up says why; a host without a cache compiles each time and is otherwise the same. Used at start-up only.

use std::path::PathBuf;

use crate::private_dir;

/// A directory that is safe to execute from, made if need be.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn directory() -> Result<PathBuf, String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let candidates = [
        variable("XDG_CACHE_HOME").map(|base| base.join("astra-host")),
        variable("HOME").map(|home| home.join(".cache/astra-host")),
        Some(std::env::temp_dir().join(format!("astra-host-{user}"))),
    ];
    let mut reason = String::new();
    for path in candidates.into_iter().flatten() {
        match private_dir::prepare(&path, user) {
            Ok(()) => return Ok(path),
            Err(why) => reason = why,
        }
    }
    Err(reason)
}
