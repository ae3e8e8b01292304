//! What is measured: builds our own servers and guests, finds `wasmtime`, and has the command line of each contender.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::server::Contender;
use crate::{Options, Scenario};

/// A Rust guest's stack is 1 MiB unless told otherwise, and resetting costs by the used memory: this is what `astra-host run DIR` links with.
const GUEST_RUSTFLAGS: &str = "-Clink-arg=-zstack-size=98304";

/// What `wasmtime serve` is fastest with (they include page-map scanning).
const BEST: &str =
    "pooling-allocator=y,pooling-pagemap-scan=y,pooling-memory-keep-resident=4194304,pooling-table-keep-resident=65536";

/// Room for 2,000 components, each with up to four core instances and tables: with its default of 1,000 core instances, 900
/// waiting guests do not fit and get 500.
const ENLARGED: &str = "pooling-total-component-instances=2000,pooling-total-core-instances=8000,pooling-total-memories=2000,\
    pooling-total-tables=8000,pooling-total-stacks=2000,pooling-total-gc-heaps=2000";

pub(crate) struct Contenders {
    /// Where Cargo puts what it builds.
    target: PathBuf,
    astra_host: PathBuf,
    wasmtime: Option<PathBuf>,
    pub(crate) wasmtime_version: Option<String>,
}

impl Contenders {
    /// Builds what the chosen scenarios need.
    pub(crate) fn prepare(options: &Options, scenarios: &[Scenario]) -> Result<Contenders> {
        let target = target_directory()?;
        cargo(&["build", "--release", "-p", "bench", "--bins"], None)?;
        if scenarios.iter().any(|scenario| !matches!(scenario, Scenario::Native | Scenario::Tls)) {
            if options.astra_host.is_none() {
                cargo(&["build", "--release", "-p", "astra-host"], None)?;
            }
            let guest = ["build", "--profile", "guest", "--target", "wasm32-wasip2"];
            let packages = ["-p", "hello", "-p", "slow", "-p", "echo", "-p", "wasip3-app"];
            cargo(&[&guest[..], &packages].concat(), Some(GUEST_RUSTFLAGS))?;
            let examples = ["says_its_version", "calls_out", "does_its_worst"].map(|name| ["--example", name]);
            cargo(&[&guest[..], &["-p", "test-guests"], &examples.concat()].concat(), Some(GUEST_RUSTFLAGS))?;
        }
        let wasmtime = options.wasmtime.clone().unwrap_or_else(|| "wasmtime".into());
        let wasmtime_version = Command::new(&wasmtime)
            .arg("--version")
            .output()
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        ensure!(wasmtime_version.is_some() || options.wasmtime.is_none(), "cannot run {}", wasmtime.display());
        Ok(Contenders {
            astra_host: options.astra_host.clone().unwrap_or_else(|| target.join("release/astra-host")),
            wasmtime: wasmtime_version.is_some().then_some(wasmtime),
            wasmtime_version,
            target,
        })
    }

    /// astra-server, hyper on Tokio, the seed.
    pub(crate) fn native(&self) -> [Contender; 3] {
        self.ours(["native_astra_server", "native_hyper_tokio", "native_astra_seed"])
    }

    /// astra-server and hyper on Tokio, both with TLS, and astra-server without.
    pub(crate) fn tls(&self) -> [Contender; 3] {
        self.ours(["native_astra_tls", "native_hyper_tls", "native_astra_server"])
    }

    /// Servers of this package.
    fn ours<const N: usize>(&self, names: [&'static str; N]) -> [Contender; N] {
        names.map(|name| Contender {
            name,
            program: self.target.join("release").join(name),
            arguments: vec!["{addr}".to_owned()],
        })
    }

    /// `astra-host run` of a guest, without access log as `wasmtime serve` has none.
    pub(crate) fn astra_host(&self, name: &'static str, guest: &str, flags: &[&str]) -> Contender {
        let arguments = ["run", &self.guest(guest), "--listen", "{addr}", "--access-log", "off"];
        Contender {
            name,
            program: self.astra_host.clone(),
            arguments: arguments.iter().chain(flags).map(ToString::to_string).collect(),
        }
    }

    /// `wasmtime serve` of the same file; `None` if there is no wasmtime. `-S cli`: guests of Rust's standard library import it.
    pub(crate) fn wasmtime(&self, name: &'static str, guest: &str, flags: &[&str]) -> Option<Contender> {
        let arguments = ["serve", "--addr", "{addr}", "-S", "cli"].iter().chain(flags);
        Some(Contender {
            name,
            program: self.wasmtime.clone()?,
            arguments: arguments.map(ToString::to_string).chain([self.guest(guest)]).collect(),
        })
    }

    pub(crate) fn wasmtime_default(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime default", guest, &[])
    }

    pub(crate) fn wasmtime_best(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime best flags", guest, &["-O", BEST])
    }

    pub(crate) fn wasmtime_enlarged(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime enlarged pools", guest, &["-O", BEST, "-O", ENLARGED])
    }

    pub(crate) fn wasmtime_cached(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime cached", guest, &["-C", "cache=y"])
    }

    /// A guest of the tests.
    pub(crate) fn example_guest(&self, name: &str) -> PathBuf {
        self.target.join("wasm32-wasip2/guest/examples").join(name).with_extension("wasm")
    }

    /// An example in another language, if the tests have built it.
    pub(crate) fn foreign(&self, example: &str) -> Option<String> {
        let file = self.target.join("guests/languages").join(example).with_extension("wasm");
        file.is_file().then(|| file.display().to_string())
    }

    /// A package's module; a path is its own.
    fn guest(&self, name: &str) -> String {
        let file = self.target.join("wasm32-wasip2/guest").join(name).with_extension("wasm");
        file.display().to_string()
    }
}

/// The directory this program runs from, two levels up: `…/target/release/bench`.
fn target_directory() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).map(Path::to_path_buf);
    target.context("this program is not in a target directory")
}

fn cargo(arguments: &[&str], rustflags: Option<&str>) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).arg("--target-dir").arg(target_directory()?);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if let Some(flags) = rustflags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
