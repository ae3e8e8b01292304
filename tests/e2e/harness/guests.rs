//! The guests: built by cargo for wasm32-wasip2, once per test run, behind a lock that processes share.
//!
//! They have a target directory of their own, so that nobody waits for the lock of the build that runs the tests, and are copied
//! out of it, because tests of `run DIR` build there too.

use std::{
    env, fs,
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

const TARGET: &str = "wasm32-wasip2";

/// The stack that `astra-host run DIR` links with too.
const RUSTFLAGS: &str = r#"target.wasm32-wasip2.rustflags=["-Clink-arg=-zstack-size=98304"]"#;

const PACKAGES: [&str; 17] = [
    "hello",
    "echo",
    "sse",
    "files",
    "router",
    "slow",
    "fetch",
    "axum-app",
    "wasip3-app",
    "without-files",
    "raw-hello",
    "wstd-app",
    "waki-app",
    "cgi",
    "wasip3-guest",
    "wasip3-cgi",
    "wasip3-draft",
];

/// The module of a guest: an example, one of other people's, or a test guest.
pub(crate) fn guest(name: &str) -> PathBuf {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    let path = MODULES.get_or_init(build_once).join(format!("{name}.wasm"));
    assert!(path.is_file(), "there is no guest {name}");
    path
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is a folder of the repository")
}

/// Where guests are built: a folder of the workspace's own target directory.
pub(crate) fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("guests")
}

/// Builds all guests unless another process of this run has done so, and says where the modules are.
fn build_once() -> PathBuf {
    let target_dir = target_dir();
    let modules = target_dir.join("modules");
    fs::create_dir_all(&modules).expect("the target directory can be written to");
    let lock = File::create(target_dir.join("lock")).expect("the target directory can be written to");
    lock.lock().expect("a lock on a file of ours");

    // cargo-nextest has a process for each test, and an id for all of them. For others this is the one process.
    let run = env::var("NEXTEST_RUN_ID").ok();
    let built_by = target_dir.join("built-by");
    if run.is_some() && fs::read_to_string(&built_by).ok() == run {
        return modules;
    }
    need_target();
    // One build would give all of them the features of each, and these want one that others do without.
    build(&target_dir, PACKAGES.iter().flat_map(|package| ["-p", package]));
    build(&target_dir, ["-p", "notes"]);
    build(&target_dir, ["--examples", "-p", "test-guests"]);

    let made = target_dir.join(TARGET).join("guest");
    copy_modules(&made, &modules);
    copy_modules(&made.join("examples"), &modules);
    fs::write(&built_by, run.unwrap_or_default()).expect("the target directory can be written to");
    modules
}

fn build(target_dir: &Path, what: impl IntoIterator<Item = &'static str>) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root()).env("CARGO_TARGET_DIR", target_dir).stdin(Stdio::null()).env_remove("RUSTFLAGS");
    build.args(["build", "--target", TARGET, "--profile", "guest", "--config", RUSTFLAGS]);
    let built = build.args(what).output().expect("cargo can be run");
    assert!(built.status.success(), "the guests cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
}

fn copy_modules(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("cargo has made it") {
        let path = entry.expect("can be listed").path();
        // Examples exist a second time, with cargo's hash in their name.
        let name = path.file_name().expect("it is a file").to_string_lossy().into_owned();
        if name.ends_with(".wasm") && !name.contains('-') || PACKAGES.iter().any(|p| name == format!("{p}.wasm")) {
            let unfinished = to.join(format!(".{name}"));
            fs::copy(&path, &unfinished).and_then(|_| fs::rename(&unfinished, to.join(&name))).expect("can be copied");
        }
    }
}

/// Adds the target to the toolchain if it is not there.
fn need_target() {
    let libraries = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let libraries = libraries.expect("rustc can be run, since cargo could");
    if Path::new(String::from_utf8_lossy(&libraries.stdout).trim_end()).is_dir() {
        return;
    }
    eprintln!("adding the Rust target {TARGET} (rustup target add {TARGET})");
    let reason = match Command::new("rustup").args(["target", "add", TARGET]).output() {
        Ok(added) if added.status.success() => return,
        Ok(added) => String::from_utf8_lossy(&added.stderr).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => "there is no rustup here".to_owned(),
        Err(error) => error.to_string(),
    };
    panic!("the tests build guests for {TARGET}, which could not be added: run `rustup target add {TARGET}`\n{reason}");
}
