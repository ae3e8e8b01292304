//! `run DIR` and `inspect DIR`: builds the Cargo package in a directory for wasm32-wasip2 and finds the module it made.
//!
//! Cargo does the work, in that directory, so that its toolchain file and configuration count. We add two things: a small
//! stack, because the memory of a guest is copied back for every request, and a profile `guest` with link-time
//! optimisation if the workspace has none of its own.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::complain;

const TARGET: &str = "wasm32-wasip2";

/// 96 KiB of stack instead of Rust's 1 MiB: twice the requests per second, since the memory of a guest is copied back for each. With the
/// data of a small guest that is 128 KiB of memory; 128 KiB of stack would make it 192.
const SMALL_STACK: &str = "-Clink-arg=-zstack-size=98304";

/// The profile for workspaces that do not define one. The name section is kept: traps are logged with function names.
const PROFILE: [&str; 4] = [
    r#"profile.guest.inherits="release""#,
    r#"profile.guest.lto="fat""#,
    "profile.guest.codegen-units=1",
    r#"profile.guest.strip="debuginfo""#,
];

/// The module that `path` stands for: a file is one, a directory is the package that builds it.
pub(super) fn module(path: &Path) -> anyhow::Result<PathBuf> {
    if path.is_dir() { build(path) } else { Ok(path.to_owned()) }
}

/// Builds the package in `dir`; returns the module.
fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        bail!("`{}` has no Cargo.toml: give a .wasm file, or the directory of a Cargo package", dir.display());
    }
    need_target(dir)?;

    let mut cargo = command("cargo", dir);
    cargo.args(["build", "--target", TARGET, "--profile", "guest", "--message-format", "json-render-diagnostics"]);
    cargo.args(["--config", &format!("target.{TARGET}.rustflags=[\"{SMALL_STACK}\"]")]);
    if !has_guest_profile(dir)? {
        cargo.args(PROFILE.iter().flat_map(|line| ["--config", line]));
    }
    // Flags from the environment replace those from the configuration, so they have to carry ours too.
    for (variable, separator) in [("CARGO_ENCODED_RUSTFLAGS", '\x1f'), ("RUSTFLAGS", ' ')] {
        if let Ok(flags) = env::var(variable) {
            cargo.env(variable, with_small_stack(flags, separator));
        }
    }
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo: install Rust from https://rustup.rs")?;
    let messages = child.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten();
    let mut artifacts = Vec::new();
    for message in messages {
        artifacts.extend(Artifact::of_message(&message.context("cannot read what cargo says")?));
    }
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("cargo could not build `{}`: its messages are above", dir.display());
    }
    let manifest = fs::canonicalize(&manifest).with_context(|| format!("cannot find `{}`", manifest.display()))?;
    artifacts.retain(|artifact| fs::canonicalize(&artifact.manifest).is_ok_and(|path| path == manifest));
    choose(artifacts, dir)
}

/// Adds our flag to those of a variable, which may have none: that too stands in the place of the configuration's.
fn with_small_stack(mut flags: String, separator: char) -> String {
    if !flags.is_empty() {
        flags.push(separator);
    }
    flags + SMALL_STACK
}

/// A program that runs in `dir`, with its progress and diagnostics on our standard error.
fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// Adds the target to the toolchain of `dir` if it is not there.
fn need_target(dir: &Path) -> anyhow::Result<()> {
    let there = command("rustc", dir)
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output()
        .context("cannot run rustc: install Rust from https://rustup.rs")?;
    let libraries = String::from_utf8_lossy(&there.stdout);
    if there.status.success() && Path::new(libraries.trim_end()).is_dir() {
        return Ok(());
    }
    complain(&format!("adding the Rust target {TARGET} (rustup target add {TARGET})\n"));
    let added = command("rustup", dir).args(["target", "add", TARGET]).stdout(Stdio::null()).status();
    if added.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    bail!("the Rust target {TARGET} is not installed and could not be added: run `rustup target add {TARGET}`")
}

/// Whether the workspace of the package has a profile `guest`. A header on a line of its own is all we look for.
fn has_guest_profile(dir: &Path) -> anyhow::Result<bool> {
    let located = command("cargo", dir)
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo: install Rust from https://rustup.rs")?;
    if !located.status.success() {
        bail!("cargo cannot read the package in `{}`: its message is above", dir.display());
    }
    let root = PathBuf::from(String::from_utf8_lossy(&located.stdout).trim_end());
    let text = fs::read_to_string(&root).with_context(|| format!("cannot read `{}`", root.display()))?;
    Ok(text.lines().any(|line| line.trim() == "[profile.guest]"))
}

/// A module that cargo made.
struct Artifact {
    manifest: PathBuf,
    is_library: bool,
    name: String,
    module: PathBuf,
}

impl Artifact {
    /// What one line of cargo's JSON says, if it is about a module.
    fn of_message(line: &str) -> Option<Self> {
        let message: Value = serde_json::from_str(line).ok()?;
        if message["reason"] != "compiler-artifact" {
            return None;
        }
        let is_kind =
            |kind: &str| message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind));
        if !is_kind("cdylib") && !is_kind("bin") {
            return None;
        }
        let files = message["filenames"].as_array()?.iter().filter_map(Value::as_str).map(PathBuf::from);
        Some(Self {
            manifest: message["manifest_path"].as_str()?.into(),
            is_library: is_kind("cdylib"),
            name: message["target"]["name"].as_str()?.to_owned(),
            module: files.into_iter().find(|file| file.extension() == Some(OsStr::new("wasm")))?,
        })
    }
}

/// The one module that is meant: the package's library if it is one, else its only program.
fn choose(artifacts: Vec<Artifact>, dir: &Path) -> anyhow::Result<PathBuf> {
    let (mut libraries, mut programs): (Vec<_>, Vec<_>) =
        artifacts.into_iter().partition(|artifact| artifact.is_library);
    match (libraries.pop(), libraries.is_empty(), programs.pop(), programs.is_empty()) {
        (Some(only), true, ..) | (None, _, Some(only), true) => Ok(only.module),
        (None, _, None, _) => bail!(
            "the package in `{}` builds no guest: give it `[lib]` with `crate-type = [\"cdylib\"]` (a workspace has \
             several: give the directory of one)",
            dir.display()
        ),
        (last_library, _, last_program, _) => {
            let all = libraries.into_iter().chain(last_library).chain(programs).chain(last_program);
            let names: Vec<String> =
                all.map(|artifact| format!("`{}` ({})", artifact.name, artifact.module.display())).collect();
            bail!(
                "the package in `{}` builds several modules, give one of the files: {}",
                dir.display(),
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, is_library: bool) -> Artifact {
        let module = format!("{name}.wasm").into();
        Artifact { manifest: PathBuf::new(), is_library, name: name.to_owned(), module }
    }

    fn chosen(artifacts: Vec<Artifact>) -> Result<PathBuf, String> {
        choose(artifacts, Path::new("dir")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_library_comes_before_programs_and_several_are_named() {
        assert_eq!(chosen(vec![artifact("lib", true), artifact("bin", false)]), Ok("lib.wasm".into()));
        assert_eq!(chosen(vec![artifact("bin", false)]), Ok("bin.wasm".into()));
        let several = chosen(vec![artifact("one", false), artifact("two", false)]).expect_err("which one?");
        assert!(several.contains("`one` (one.wasm), `two` (two.wasm)"), "{several}");
        let none = chosen(Vec::new()).expect_err("there is none");
        assert!(none.contains("cdylib"), "{none}");
    }

    #[test]
    fn flags_of_the_environment_carry_the_small_stack_too() {
        assert_eq!(with_small_stack(String::new(), ' '), SMALL_STACK);
        assert_eq!(with_small_stack("-Ca=b -Cc".to_owned(), ' '), format!("-Ca=b -Cc {SMALL_STACK}"));
        assert_eq!(with_small_stack("-C\x1fa=b c".to_owned(), '\x1f'), format!("-C\x1fa=b c\x1f{SMALL_STACK}"));
    }

    #[test]
    fn the_module_is_found_in_what_cargo_says() {
        let message = |kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/p/Cargo.toml","target":{{"kind":[{kind}],"name":"hello"}},
                "filenames":["/t/libhello.rlib","/t/hello.wasm"]}}"#
            )
        };
        let found = Artifact::of_message(&message(r#""cdylib","rlib""#)).expect("is a module");
        assert_eq!((found.module, found.is_library), ("/t/hello.wasm".into(), true));
        assert!(Artifact::of_message(&message(r#""bin""#)).is_some_and(|artifact| !artifact.is_library));
        for other in [message(r#""rlib""#), r#"{"reason":"build-finished","success":true}"#.into(), "not JSON".into()] {
            assert!(Artifact::of_message(&other).is_none(), "{other}");
        }
    }
}
