//! Where compiled modules are kept between runs.
//!
//! What lies in the cache is executed, so its directory must be ours alone (`private_dir.rs`). If the one that should be used is not, the
//! next is, and if none can be had the cache is off: start-up says why. A host without a cache compiles each time and is otherwise the same.
//! Used at start-up only.

use std::path::PathBuf;

use crate::private_dir;

/// A directory that is safe to execute from, made if need be; and a sentence that says why it is not the first choice, if it is not.
///
/// # Errors
/// A sentence that says why there is none.
pub(crate) fn directory() -> Result<(PathBuf, Option<String>), String> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let candidates = [
        variable("XDG_CACHE_HOME").map(|base| base.join("astra-host")),
        variable("HOME").map(|home| home.join(".cache/astra-host")),
        Some(std::env::temp_dir().join(format!("astra-host-{user}"))),
    ];
    let mut reasons = Vec::new();
    for path in candidates.into_iter().flatten() {
        match private_dir::prepare(&path) {
            Ok(()) if reasons.is_empty() => return Ok((path, None)),
            Ok(()) => {
                let note = format!("compiled modules are kept in `{}`: {}", path.display(), reasons.join("; "));
                return Ok((path, Some(note)));
            }
            Err(why) => reasons.push(why),
        }
    }
    Err(reasons.join("; "))
}
