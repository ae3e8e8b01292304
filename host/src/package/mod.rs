//! Cargo packages that are handlers: builds the one in a directory for wasm32-wasip2 and finds the module it made.
//!
//! Cargo does the work, in that directory, so that its toolchain file and configuration count. We add two things: a small
//! stack, because the memory of a guest is copied back for every request, and a profile `guest` with link-time
//! optimisation if the workspace has none of its own. What cargo has to say goes to our standard error as it says it.
//!
//! A build takes as long as it takes, on the thread that asks for it; another thread can [`Cancel`] it.

mod cancel;
mod manifest;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

pub use cancel::Cancel;
pub use manifest::name;
pub(crate) use manifest::{directories, manifest_in};

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

/// Why a Cargo package could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The directory is no package.
    #[error("`{}` has no Cargo.toml: give a .wasm file, or the directory of a Cargo package", dir.display())]
    NoManifest {
        /// The directory.
        dir: PathBuf,
    },
    /// A manifest cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A manifest is not TOML.
    #[error("`{}` is not a Cargo manifest", path.display())]
    NotToml {
        /// The manifest.
        path: PathBuf,
        /// Where it goes wrong.
        source: Box<toml::de::Error>,
    },
    /// There is no cargo or rustc, or it cannot be run.
    #[error("cannot run {program}: install Rust from https://rustup.rs")]
    NoRust {
        /// Which.
        program: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The toolchain lacks the target, and it could not be added.
    #[error("the Rust target {TARGET} is not installed and could not be added: run `rustup target add {TARGET}`")]
    NoTarget,
    /// Cargo does not understand the package.
    #[error("cargo cannot read the package in `{}`: its message is above", dir.display())]
    NotAPackage {
        /// The directory.
        dir: PathBuf,
    },
    /// The package does not compile.
    #[error("cargo could not build `{}`: its messages are above", dir.display())]
    Failed {
        /// The directory.
        dir: PathBuf,
    },
    /// The package was built, and nothing of it is a module.
    #[error(
        "the package in `{}` builds no guest: give it `[lib]` with `crate-type = [\"cdylib\"]` (a workspace has several: give \
         the directory of one)",
        dir.display()
    )]
    NoGuest {
        /// The directory.
        dir: PathBuf,
    },
    /// The package makes several modules, and none of them is its library.
    #[error("the package in `{}` builds several modules, give one of the files: {modules}", dir.display())]
    Several {
        /// The directory.
        dir: PathBuf,
        /// Their names and files.
        modules: String,
    },
    /// Somebody called [`Cancel::cancel`].
    #[error("the build of `{}` was given up", dir.display())]
    Cancelled {
        /// The directory.
        dir: PathBuf,
    },
}

/// The module that `path` stands for: a file is one, a directory is the package that builds it.
///
/// Cargo stays in our process group: on a terminal Ctrl-C ends it together with us, who may not live on to end it.
///
/// # Errors
/// The directory is no package, or it builds no module.
pub fn module(path: &Path) -> Result<PathBuf, BuildError> {
    if path.is_dir() { Build { dir: path, cancel: None }.module() } else { Ok(path.to_owned()) }
}

/// The same, unless the build is cancelled first.
///
/// Cargo gets a process group of its own, because all it has started is to end with it. So Ctrl-C on our terminal does not reach
/// it: who uses this catches signals, and cancels.
///
/// # Errors
/// The directory is no package, it builds no module, or the build was cancelled.
pub fn module_until(path: &Path, cancel: &Cancel) -> Result<PathBuf, BuildError> {
    if path.is_dir() { Build { dir: path, cancel: Some(cancel) }.module() } else { Ok(path.to_owned()) }
}

/// The build of one package.
struct Build<'a> {
    dir: &'a Path,
    cancel: Option<&'a Cancel>,
}

impl Build<'_> {
    /// Builds the package; returns the module.
    fn module(&self) -> Result<PathBuf, BuildError> {
        let manifest = manifest_in(self.dir)?;
        self.need_target()?;

        let mut cargo = self.command("cargo");
        cargo.args(["build", "--target", TARGET, "--profile", "guest", "--message-format", "json-render-diagnostics"]);
        cargo.args(["--config", &format!("target.{TARGET}.rustflags=[\"{SMALL_STACK}\"]")]);
        if !self.has_guest_profile()? {
            cargo.args(PROFILE.iter().flat_map(|line| ["--config", line]));
        }
        // Flags from the environment replace those from the configuration, so they have to carry ours too.
        for (variable, separator) in [("CARGO_ENCODED_RUSTFLAGS", '\x1f'), ("RUSTFLAGS", ' ')] {
            if let Ok(flags) = env::var(variable) {
                cargo.env(variable, with_small_stack(flags, separator));
            }
        }
        let built = self.output("cargo", &mut cargo)?;
        if !built.status.success() {
            return Err(BuildError::Failed { dir: self.dir.to_owned() });
        }
        let manifest =
            fs::canonicalize(&manifest).map_err(|source| BuildError::Unreadable { path: manifest, source })?;
        let messages = String::from_utf8_lossy(&built.stdout);
        let mut artifacts: Vec<Artifact> = messages.lines().filter_map(Artifact::of_message).collect();
        artifacts.retain(|artifact| fs::canonicalize(&artifact.manifest).is_ok_and(|path| path == manifest));
        choose(artifacts, self.dir)
    }

    /// Adds the target to the toolchain of the package if it is not there.
    fn need_target(&self) -> Result<(), BuildError> {
        let mut rustc = self.command("rustc");
        rustc.args(["--print", "target-libdir", "--target", TARGET]).stderr(Stdio::null());
        let there = self.output("rustc", &mut rustc)?;
        let libraries = String::from_utf8_lossy(&there.stdout);
        if there.status.success() && Path::new(libraries.trim_end()).is_dir() {
            return Ok(());
        }
        // Announces what rustup says next, in the same place; nobody may have set up a log yet.
        let _ = writeln!(io::stderr(), "astra-host: adding the Rust target {TARGET} (rustup target add {TARGET})");
        match self.output("rustup", self.command("rustup").args(["target", "add", TARGET])) {
            Ok(added) if added.status.success() => Ok(()),
            Err(cancelled @ BuildError::Cancelled { .. }) => Err(cancelled),
            _ => Err(BuildError::NoTarget),
        }
    }

    /// Whether the workspace of the package has a profile `guest`.
    fn has_guest_profile(&self) -> Result<bool, BuildError> {
        let mut locate = self.command("cargo");
        locate.args(["locate-project", "--workspace", "--message-format", "plain"]);
        let located = self.output("cargo", &mut locate)?;
        if !located.status.success() {
            return Err(BuildError::NotAPackage { dir: self.dir.to_owned() });
        }
        let root = manifest::read(Path::new(String::from_utf8_lossy(&located.stdout).trim_end()))?;
        Ok(root.get("profile").is_some_and(|profiles| profiles.get("guest").is_some()))
    }

    /// A program that runs in the directory of the package, with its progress and diagnostics on our standard error.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command
    }

    /// Runs it to its end, or until the build is cancelled.
    fn output(&self, program: &'static str, command: &mut Command) -> Result<Output, BuildError> {
        let output = match self.cancel {
            None => command.output(),
            Some(cancel) => cancel.output(command),
        };
        if self.cancel.is_some_and(Cancel::is_cancelled) {
            return Err(BuildError::Cancelled { dir: self.dir.to_owned() });
        }
        output.map_err(|source| BuildError::NoRust { program, source })
    }
}

/// Adds our flag to those of a variable, which may have none: that too stands in the place of the configuration's.
fn with_small_stack(mut flags: String, separator: char) -> String {
    if !flags.is_empty() {
        flags.push(separator);
    }
    flags + SMALL_STACK
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
fn choose(artifacts: Vec<Artifact>, dir: &Path) -> Result<PathBuf, BuildError> {
    let (mut libraries, mut programs): (Vec<_>, Vec<_>) =
        artifacts.into_iter().partition(|artifact| artifact.is_library);
    match (libraries.pop(), libraries.is_empty(), programs.pop(), programs.is_empty()) {
        (Some(only), true, ..) | (None, _, Some(only), true) => Ok(only.module),
        (None, _, None, _) => Err(BuildError::NoGuest { dir: dir.to_owned() }),
        (last_library, _, last_program, _) => {
            let all = libraries.into_iter().chain(last_library).chain(programs).chain(last_program);
            let names: Vec<String> =
                all.map(|artifact| format!("`{}` ({})", artifact.name, artifact.module.display())).collect();
            Err(BuildError::Several { dir: dir.to_owned(), modules: names.join(", ") })
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

    #[test]
    fn a_build_that_is_cancelled_runs_nothing() {
        let cancel = Cancel::default();
        cancel.cancel();
        let dir = manifest::tests::package("cancelled", "package.name = 'app'");
        let error = module_until(&dir, &cancel).expect_err("it stays cancelled");
        fs::remove_dir_all(dir).expect("ours");
        assert!(matches!(error, BuildError::Cancelled { .. }), "{error}");
    }
}
