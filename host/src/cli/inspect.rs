//! `astra-host inspect`: says what a module is and what it will need, without compiling it to machine code; and why it cannot be served, if
//! that can be said.

use std::path::PathBuf;

use clap::Args;

use super::say;
use crate::{
    config::format_size,
    guest::{self, Kind, interface},
    package,
};

/// Show what a module is: kind, imports, exports, the grants it will need, size and digest
#[derive(Args)]
pub(super) struct Inspect {
    /// A .wasm file, or the directory of a Cargo package, which is built first
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,
}

impl Inspect {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let path = package::module(&self.path)?;
        let info = guest::inspect(&path)?;
        say(&format!("file     {}", path.display()));
        say(&format!("kind     {}", info.kind));
        if matches!(info.kind, Kind::HttpHandler { .. }) {
            say(&format!("world    {}", world(&info.imports)));
        }
        say(&format!("size     {} ({} bytes)", format_size(info.size), info.size));
        say(&format!("sha256   {}", info.digest));
        list("exports", &info.exports);
        list("imports", &info.imports);
        list("may need", &info.needs);
        Ok(info.require_served(&path)?)
    }
}

/// What the world `wasi:http/proxy` gives its guests (WASI 0.2, `wasi:http`).
const PROXY: [&str; 13] = [
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// A component does not say which world it was made for: what it imports tells whether it asks for more than a proxy.
fn world(imports: &[String]) -> String {
    let mut beyond: Vec<_> = imports.iter().map(|import| interface(import)).collect();
    beyond.retain(|interface| !PROXY.contains(interface));
    if beyond.is_empty() { "wasi:http/proxy".to_owned() } else { format!("wasi:http/proxy and {}", beyond.join(", ")) }
}

fn list(title: &str, entries: &[impl std::fmt::Display]) {
    say(title);
    for entry in entries {
        say(&format!("  {entry}"));
    }
    if entries.is_empty() {
        say("  nothing");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_world_is_told_from_its_imports() {
        let imports = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(world(&imports(&["wasi:io/poll@0.2.0", "wasi:http/types@0.2.12"])), "wasi:http/proxy");
        let more = imports(&["wasi:io/poll@0.2.0", "wasi:cli/exit@0.2.0", "env"]);
        assert_eq!(world(&more), "wasi:http/proxy and wasi:cli/exit, env");
    }
}
