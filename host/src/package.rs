//! Cargo packages that are handlers: builds the one in a directory for wasm32-wasip2 and finds the module it made.
//!
//! Cargo does the work, in that directory, so that its toolchain file and configuration count. We add two things: a small
//! stack, because the memory of a guest is copied back for every request, and a profile `guest` with link-time
//! optimisation if the workspace has none of its own. What cargo has to say goes to our standard error as it says it.
//!
//! A build takes as long as it takes, on the thread that asks for it; another thread can [`Cancel`] it.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use serde_json::Value;
use toml::Table;

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

/// Packages that one is followed to by its path dependencies, at most.
const MOST_DIRECTORIES: usize = 64;

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

/// The name of the module that `path` stands for, without the extension and without building it: what a handler is called that was
/// given no name.
///
/// # Errors
/// The directory is no package, or its manifest cannot be read.
pub fn name(path: &Path) -> Result<String, BuildError> {
    if !path.is_dir() {
        let stem = path.file_stem().unwrap_or(OsStr::new("handler"));
        return Ok(stem.to_string_lossy().into_owned());
    }
    let manifest = read_manifest(&manifest_in(path)?)?;
    let package = manifest.get("package").and_then(|package| package.get("name")?.as_str());
    let package = package.ok_or_else(|| BuildError::NoGuest { dir: path.to_owned() })?;
    let program = || manifest.get("bin")?.get(0)?.get("name")?.as_str();
    Ok(match manifest.get("lib").filter(|lib| is_cdylib(lib)) {
        // The file of a library is called like the crate, that of a program like the program.
        Some(lib) => lib.get("name").and_then(toml::Value::as_str).unwrap_or(package).replace('-', "_"),
        None => program().unwrap_or(package).to_owned(),
    })
}

fn is_cdylib(lib: &toml::Value) -> bool {
    let kinds = ["crate-type", "crate_type"].iter().find_map(|key| lib.get(key)?.as_array());
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind.as_str() == Some("cdylib")))
}

/// The directories that the package in `dir` is made from: its own, and those of its path dependencies, theirs too. What cannot be
/// read is left out: cargo will say what is wrong with it.
pub(crate) fn directories(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(dir) = ahead.pop() {
        let Ok(dir) = fs::canonicalize(dir) else { continue };
        if found.len() < MOST_DIRECTORIES && !found.contains(&dir) {
            ahead.extend(path_dependencies(&dir));
            found.push(dir);
        }
    }
    found
}

/// Where the dependencies are that the manifest in `dir` has by path, itself or through its workspace.
fn path_dependencies(dir: &Path) -> Vec<PathBuf> {
    let Ok(manifest) = read_manifest(&dir.join("Cargo.toml")) else { return Vec::new() };
    let of_targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(Table::values);
    let all = of_targets.filter_map(toml::Value::as_table).chain([&manifest]);
    let all = all.flat_map(|table| [table.get("dependencies"), table.get("build-dependencies")]).flatten();
    let path_of = |dependency: &toml::Value| Some(dependency.get("path")?.as_str()?.to_owned());

    let (mut paths, mut inherited) = (Vec::new(), Vec::new());
    for (name, dependency) in all.filter_map(toml::Value::as_table).flatten() {
        paths.extend(path_of(dependency).map(|path| dir.join(path)));
        if dependency.get("workspace").is_some() {
            inherited.push(name);
        }
    }
    if !inherited.is_empty()
        && let Some((root, workspace)) = dir.ancestors().find_map(workspace_in)
    {
        let of_workspace = |name: &&String| path_of(workspace.get("dependencies")?.get(name.as_str())?);
        paths.extend(inherited.iter().filter_map(of_workspace).map(|path| root.join(path)));
    }
    paths
}

/// The workspace whose root is `dir`, if it is one.
fn workspace_in(dir: &Path) -> Option<(&Path, toml::Value)> {
    Some((dir, read_manifest(&dir.join("Cargo.toml")).ok()?.remove("workspace")?))
}

fn manifest_in(dir: &Path) -> Result<PathBuf, BuildError> {
    let manifest = dir.join("Cargo.toml");
    if manifest.is_file() { Ok(manifest) } else { Err(BuildError::NoManifest { dir: dir.to_owned() }) }
}

fn read_manifest(path: &Path) -> Result<Table, BuildError> {
    let text = fs::read_to_string(path).map_err(|source| BuildError::Unreadable { path: path.to_owned(), source })?;
    text.parse().map_err(|source| BuildError::NotToml { path: path.to_owned(), source: Box::new(source) })
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
        let root = read_manifest(Path::new(String::from_utf8_lossy(&located.stdout).trim_end()))?;
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

/// Gives up one build, at once and from any thread. It stays cancelled.
#[derive(Debug, Default)]
pub struct Cancel(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    is_cancelled: bool,
    /// The process group that runs now. Set and taken away under the lock, and only while its first process is not reaped: until then
    /// the system gives its id to no other.
    group: Option<Pid>,
}

impl Cancel {
    /// Kills whatever the build runs, and lets it run nothing more.
    ///
    /// Killed, not asked to end: cargo takes up an interrupted build where it was, and a build script may not listen.
    pub fn cancel(&self) {
        let mut running = self.lock();
        running.is_cancelled = true;
        if let Some(group) = running.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Whether [`Self::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().is_cancelled
    }

    /// Runs `command` in a process group of its own and reaps it.
    ///
    /// It is in the terminal's background then: it reads nothing, and what it writes is shown as long as the terminal is not set to
    /// `tostop`, which few know and nobody else sets.
    fn output(&self, command: &mut Command) -> io::Result<Output> {
        let mut running = self.lock();
        if running.is_cancelled {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let mut child = command.process_group(0).spawn()?;
        let pid = Pid::from_child(&child);
        running.group = Some(pid);
        drop(running);

        let mut stdout = Vec::new();
        let read = child.stdout.take().map(|mut out| out.read_to_end(&mut stdout)).transpose();
        // Whether it goes well or not, afterwards there is nothing left to wait for but the end that is reaped below.
        let _ = retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
        self.lock().group = None;
        let status = child.wait()?;
        read?;
        Ok(Output { status, stdout, stderr: Vec::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// A package whose manifest is this, in a directory of this test's own.
    fn package(name: &str, manifest: &str) -> PathBuf {
        let dir = env::temp_dir().join(format!("astra-host-package-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("ours");
        fs::write(dir.join("Cargo.toml"), manifest).expect("ours");
        dir
    }

    #[test]
    fn a_name_is_told_without_building() {
        for (manifest, expected) in [
            ("package.name = 'my-app'\nlib.crate-type = ['cdylib']", "my_app"),
            ("package.name = 'my-app'\nlib.crate-type = ['cdylib']\nlib.name = 'other'", "other"),
            ("package.name = 'my-app'", "my-app"),
            ("package.name = 'my-app'\nlib.name = 'other'\nbin = [{ name = 'the-bin' }]", "the-bin"),
        ] {
            let dir = package("name", manifest);
            assert_eq!(name(&dir).expect("it has one"), expected, "{manifest}");
            fs::remove_dir_all(dir).expect("ours");
        }
        assert_eq!(name(Path::new("dir/hello.wasm")).expect("a file"), "hello");
        for (manifest, words) in [("[workspace]", "give the directory of one"), ("[package", "is not a Cargo manifest")]
        {
            let dir = package("nameless", manifest);
            let error = name(&dir).expect_err("it has none").to_string();
            assert!(error.contains(words), "{error}");
            fs::remove_dir_all(dir).expect("ours");
        }
    }

    #[test]
    fn a_cancelled_build_leaves_nothing_running() {
        let cancel = Cancel::default();
        let mut shell = Command::new("sh");
        // What it starts holds the pipe too, and would for an hour.
        shell.args(["-c", "sleep 3600 & sleep 3600"]).stdout(Stdio::piped());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| cancel.output(&mut shell));
            while cancel.lock().group.is_none() {
                std::thread::yield_now();
            }
            cancel.cancel();
            let output = running.join().expect("no panic").expect("it did run");
            assert!(!output.status.success());
        });
        let refused = cancel.output(Command::new("true").stdout(Stdio::piped())).expect_err("it stays cancelled");
        assert_eq!(refused.kind(), io::ErrorKind::Interrupted);

        let dir = package("cancelled", "package.name = 'app'");
        let error = module_until(&dir, &cancel).expect_err("it stays cancelled");
        fs::remove_dir_all(dir).expect("ours");
        assert!(matches!(error, BuildError::Cancelled { .. }), "{error}");
    }

    #[test]
    fn what_is_not_cancelled_runs_to_its_end() {
        let cancel = Cancel::default();
        let mut shell = Command::new("sh");
        let output = cancel.output(shell.args(["-c", "echo it; exit 3"]).stdout(Stdio::piped())).expect("it runs");
        assert_eq!((output.status.code(), output.stdout), (Some(3), b"it\n".to_vec()));
        cancel.cancel();
    }
}
