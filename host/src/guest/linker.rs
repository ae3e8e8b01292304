//! What guests may import: one linker for each world, filled interface by interface.
//!
//! Never `add_to_linker_sync`: `wasi:io` is ours (`blocking.rs`), and so is what bodies, answers and sleeping stand on.
//! All of `wasi:cli`, `wasi:filesystem`, `wasi:sockets`… is linked, as guests of real toolchains import it whether they
//! use it or not, and denied when it is called. Guests of WASI 0.3 get both lines: their standard libraries speak 0.2.

use wasmtime::{Engine, Result, component::Linker};
use wasmtime_wasi::{
    cli::{WasiCli, WasiCliView as _},
    clocks::WasiClocks,
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::bindings::{cli, clocks, filesystem, random, sockets, sync},
    p3,
    random::{WasiRandom, WasiRandomView as _},
    sockets::{WasiSockets, WasiSocketsView as _},
};

use super::{blocking, config_store, draft, engine::Calls, http, http03, instance::State, monotonic, opening};

/// What guests of WASI 0.2 may import, by interface: for telling which import of a guest's is missing.
const PROVIDED_02: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// What guests of WASI 0.3 may import beside that.
const PROVIDED_03: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/types",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/system-clock",
    "wasi:clocks/types",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/client",
    "wasi:http/types",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/types",
];

/// Whether a guest of that world may import `name` (`wasi:http/types@0.2.3`). All releases of a line are compatible,
/// drafts are not, but for those of `wasi:config`, which has nothing else, and the last of 0.3.
pub(crate) fn provides(calls: Calls, name: &str) -> bool {
    if config_store::NAMES.contains(&name) {
        return true;
    }
    let Some((interface, version)) = name.split_once('@') else { return false };
    if is_of_line(version, "0.2.") {
        return PROVIDED_02.contains(&interface);
    }
    calls == Calls::Concurrent && is_of_line(version, "0.3.") && PROVIDED_03.contains(&interface)
}

/// Whether a version is of the line that begins like this: one of its releases, builds of them included, or the draft
/// that is accepted for one.
pub(crate) fn is_of_line(version: &str, line: &str) -> bool {
    let patch = version.strip_prefix(line).map(|patch| patch.split_once('+').map_or(patch, |(patch, _build)| patch));
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
        || line == "0.3." && version == draft::VERSION
}

/// A linker with everything that guests of that world may import.
pub(crate) fn new(engine: &Engine, calls: Calls) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    link_02(&mut linker)?;
    if calls == Calls::Concurrent {
        link_03(&mut linker)?;
    }
    Ok(linker)
}

fn link_02(l: &mut Linker<State>) -> Result<()> {
    blocking::link(l)?;
    http::link(l)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(l, State::time)?;
    monotonic::link(l)?;
    random::random::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure::add_to_linker::<State, WasiRandom>(l, State::random)?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(l, State::random)?;
    cli::environment::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(l, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(l, State::cli)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    sync::filesystem::types::add_to_linker::<State, WasiFilesystem>(l, State::filesystem)?;
    // None of these can block, although their sync form says `in_tokio`: UDP sockets cannot be had, listening is denied
    // before it starts, and binding, which is possible to the unspecified address and port 0 only, does not wait.
    let options = sync::LinkOptions::default();
    sockets::network::add_to_linker::<State, WasiSockets>(l, &(&options).into(), State::sockets)?;
    sockets::instance_network::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    super::sockets::link_name_lookup(l)?;
    sockets::tcp_create_socket::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sync::sockets::tcp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sync::sockets::udp_create_socket::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    sync::sockets::udp::add_to_linker::<State, WasiSockets>(l, State::sockets)?;
    super::sockets::link_create(l)?;
    config_store::link(l)?;
    opening::link(l)
}

fn link_03(l: &mut Linker<State>) -> Result<()> {
    http03::link(l)?;
    p3::cli::add_to_linker(l)?;
    p3::bindings::clocks::types::add_to_linker::<State, WasiClocks>(l, State::time)?;
    p3::bindings::clocks::system_clock::add_to_linker::<State, WasiClocks>(l, State::time)?;
    p3::bindings::clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(l, State::time)?;
    p3::filesystem::add_to_linker(l)?;
    p3::random::add_to_linker(l)?;
    p3::sockets::add_to_linker(l)?;
    super::sockets::link_create_03(l)?;
    super::sockets::link_name_lookup_03(l)?;
    opening::link_03(l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_says_what_is_provided() {
        let readme = include_str!("../../../README.md");
        let rows: Vec<Vec<&str>> = readme
            .lines()
            .filter(|line| line.starts_with("| `wasi:"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        for (column, provided) in [(1, PROVIDED_02), (2, PROVIDED_03)] {
            let mut said: Vec<_> =
                rows.iter().filter(|row| row[column] != "–").map(|row| row[0].trim_matches('`')).collect();
            said.sort_unstable();
            assert_eq!(said, provided, "column {column}");
        }
    }

    #[test]
    fn drafts_are_not_of_a_line_but_for_the_last_of_0_3() {
        for (version, line, is_one) in [
            ("0.2.3", "0.2.", true),
            ("0.2.3+build", "0.2.", true),
            ("0.2.0-rc-2023-12-05", "0.2.", false),
            ("0.3.0-rc-2026-03-15", "0.3.", true),
            ("0.3.0-rc-2026-01-06", "0.3.", false),
            ("0.2.", "0.2.", false),
            ("0.20.0", "0.2.", false),
        ] {
            assert_eq!(is_of_line(version, line), is_one, "{version}");
        }
    }
}
