//! Builds of packages that last as long as a test wants them to: what starts a host is busy meanwhile.

use std::{env, ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use rustix::process::Pid;

use super::{Host, Scratch, Setup};

/// A `cargo` that says that it has begun, and waits. Released, it does what it should.
pub(crate) struct HeldBuild {
    tools: PathBuf,
    /// A package that cargo cannot build.
    pub(crate) broken: PathBuf,
}

impl HeldBuild {
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let manifest = scratch.file("broken/Cargo.toml", "[package]\nname = 'broken'\n");
        let wait = r#"echo "build begun $$" >&2; while [ -e "$0" ] && [ ! -e "$0.released" ]; do sleep 0.01; done"#;
        let cargo =
            scratch.file("tools/cargo", format!("#!/bin/sh\n{wait}\nPATH=\"${{PATH#*:}}\" exec cargo \"$@\"\n"));
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("ours");
        Self { tools: cargo.with_file_name(""), broken: manifest.with_file_name("") }
    }

    /// Has a host build with it, and whatever takes the host's place.
    pub(crate) fn holds(&self, setup: Setup) -> Setup {
        let path = env::var_os("PATH").expect("cargo was found");
        let mut tools = OsString::from(&self.tools);
        tools.push(":");
        tools.push(path);
        setup.environment("PATH", tools)
    }

    /// Waits until a host builds, whose errors go where those of `host` do; the first process of the build.
    pub(crate) fn begun(&self, host: &Host) -> Pid {
        let line = host.stderr_with("build begun ");
        Pid::from_raw(line["build begun ".len()..].parse().expect("a number")).expect("is not 0")
    }

    pub(crate) fn release(&self) {
        fs::write(self.tools.join("cargo.released"), "").expect("ours");
    }
}
