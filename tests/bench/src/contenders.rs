//! What is measured: builds our own servers and guests, finds those of others, and has the command line of each contender.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::server::Contender;
use crate::tool::Tool;
use crate::{Options, Scenario};

/// A Rust guest's stack is 1 MiB unless told otherwise, and resetting costs by the used memory: this is what `astra-host run DIR` links with.
const GUEST_RUSTFLAGS: &str = "-Clink-arg=-zstack-size=98304";
const LARGE_STACK: &str = "-Clink-arg=-zstack-size=1048576";

/// Where guests with a large stack are put, in a target directory of their own: those with the small one stay as they are.
const STACK: &str = "guests/stack";

/// What `wasmtime serve` is fastest with (they include page-map scanning).
const BEST: &str =
    "pooling-allocator=y,pooling-pagemap-scan=y,pooling-memory-keep-resident=4194304,pooling-table-keep-resident=65536";

/// Room for 2,000 components, each with up to four core instances and tables: with its default of 1,000 core instances, 900
/// waiting guests do not fit and get 500.
const ENLARGED: &str = "pooling-total-component-instances=2000,pooling-total-core-instances=8000,pooling-total-memories=2000,\
    pooling-total-tables=8000,pooling-total-stacks=2000,pooling-total-gc-heaps=2000";

/// Hellos in what others run.
const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peers");

/// Guests of the tests.
const EXAMPLES: [&str; 7] = [
    "burns_cpu",
    "calls_out",
    "does_its_worst",
    "loops_for_ever",
    "says_its_version",
    "trap_after_head",
    "trap_before_head",
];

pub(crate) struct Contenders {
    /// Where Cargo puts what it builds.
    target: PathBuf,
    astra_host: PathBuf,
    pub(crate) wasmtime: Option<Tool>,
    pub(crate) node: Option<Tool>,
    pub(crate) workerd: Option<Tool>,
}

impl Contenders {
    /// Builds what the chosen scenarios need.
    pub(crate) fn prepare(options: &Options, scenarios: &[Scenario]) -> Result<Contenders> {
        let target = target_directory()?;
        let with_native = [Scenario::Native, Scenario::Tls, Scenario::Fetch, Scenario::Hello, Scenario::Curves];
        if scenarios.iter().any(|scenario| with_native.contains(scenario)) {
            cargo(&["build", "--release", "-p", "bench", "--bins"], None, &target)?;
        }
        if scenarios.iter().any(|scenario| !matches!(scenario, Scenario::Native | Scenario::Tls)) {
            if options.astra_host.is_none() {
                cargo(&["build", "--release", "-p", "astra-host"], None, &target)?;
            }
            let guest = ["build", "--profile", "guest", "--target", "wasm32-wasip2"];
            let packages = ["-p", "hello", "-p", "slow", "-p", "echo", "-p", "files", "-p", "wasip3-app"];
            cargo(&[&guest[..], &packages].concat(), Some(GUEST_RUSTFLAGS), &target)?;
            let mut examples = vec!["-p", "test-guests"];
            examples.extend(EXAMPLES.iter().flat_map(|example| ["--example", *example]));
            cargo(&[&guest[..], &examples].concat(), Some(GUEST_RUSTFLAGS), &target)?;
            if scenarios.contains(&Scenario::Stack) {
                cargo(&[&guest[..], &["-p", "hello"]].concat(), Some(LARGE_STACK), &target.join(STACK))?;
            }
        }
        Ok(Contenders {
            astra_host: options.astra_host.clone().unwrap_or_else(|| target.join("release/astra-host")),
            wasmtime: Tool::find(options.wasmtime.as_deref(), "wasmtime")?,
            node: Tool::find(None, "node")?,
            workerd: Tool::find(options.workerd.as_deref(), "workerd")?,
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
        names.map(|name| contender(name, &self.target.join("release").join(name), &["{addr}"], &[]))
    }

    /// `astra-host run` of a guest, without access log as `wasmtime serve` has none.
    pub(crate) fn astra_host(&self, name: &'static str, guest: &str, flags: &[&str]) -> Contender {
        self.astra_host_run(name, &self.guest(guest), &[&["--access-log", "off"], flags].concat())
    }

    /// The same with an access log in a file.
    pub(crate) fn astra_host_logging(&self, name: &'static str, guest: &str, format: &str, log: &Path) -> Contender {
        let contender = self.astra_host_run(name, &self.guest(guest), &["--access-log", format]);
        Contender { log: Some(log.to_owned()), ..contender }
    }

    /// `astra-host run` of a configuration file. What it logs is left to `flags`.
    pub(crate) fn astra_host_of(&self, name: &'static str, config: &Path, flags: &[&str]) -> Contender {
        self.astra_host_run(name, &config.display().to_string(), &[&["--no-state"], flags].concat())
    }

    fn astra_host_run(&self, name: &'static str, what: &str, flags: &[&str]) -> Contender {
        contender(name, &self.astra_host, &["run", what, "--listen", "{addr}"], flags)
    }

    /// `wasmtime serve` of the same file; `None` if there is no wasmtime. `-S cli`: guests of Rust's standard library import it.
    pub(crate) fn wasmtime(&self, name: &'static str, guest: &str, flags: &[&str]) -> Option<Contender> {
        let wasmtime = &self.wasmtime.as_ref()?.program;
        let guest = self.guest(guest);
        let flags = [flags, &[&guest]].concat();
        Some(contender(name, wasmtime, &["serve", "--addr", "{addr}", "-S", "cli"], &flags))
    }

    pub(crate) fn wasmtime_default(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime default", guest, &[])
    }

    pub(crate) fn wasmtime_best(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime best flags", guest, &["-O", BEST])
    }

    /// It makes one fresh instance for a thousand requests: one after the other, since guests of WASI 0.2 take one at a time.
    pub(crate) fn wasmtime_reused(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime reused 1,000 times", guest, &["-O", BEST, "--max-instance-reuse-count", "1000"])
    }

    pub(crate) fn wasmtime_enlarged(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime enlarged pools", guest, &["-O", BEST, "-O", ENLARGED])
    }

    pub(crate) fn wasmtime_cached(&self, guest: &str) -> Option<Contender> {
        self.wasmtime("wasmtime cached", guest, &["-C", "cache=y"])
    }

    /// A hello on Node's own server.
    pub(crate) fn node(&self) -> Option<Contender> {
        let script = format!("{PEERS}/hello_node.js");
        Some(contender("Node", &self.node.as_ref()?.program, &[&script, "{addr}"], &[]))
    }

    /// A hello on workerd, which tells where it listens on a descriptor: its standard output.
    pub(crate) fn workerd(&self) -> Option<Contender> {
        let workerd = &self.workerd.as_ref()?.program;
        let config = format!("{PEERS}/hello_workerd.capnp");
        Some(contender("workerd", workerd, &["serve", "--control-fd=1", "--socket-addr=http={addr}"], &[&config]))
    }

    /// A guest of the tests.
    pub(crate) fn example_guest(&self, name: &str) -> PathBuf {
        self.target.join("wasm32-wasip2/guest/examples").join(name).with_extension("wasm")
    }

    /// With 1 MiB of it.
    pub(crate) fn hello_with_a_large_stack(&self) -> PathBuf {
        self.target.join(STACK).join("wasm32-wasip2/guest/hello.wasm")
    }

    /// An example in another language, if the tests have built it.
    pub(crate) fn foreign(&self, example: &str) -> Option<String> {
        let file = self.target.join("guests/languages").join(example).with_extension("wasm");
        file.is_file().then(|| file.display().to_string())
    }

    /// A package's module; a path is its own.
    pub(crate) fn guest(&self, name: &str) -> String {
        let file = self.target.join("wasm32-wasip2/guest").join(name).with_extension("wasm");
        file.display().to_string()
    }
}

fn contender(name: &'static str, program: &Path, arguments: &[&str], more: &[&str]) -> Contender {
    let arguments = arguments.iter().chain(more).map(ToString::to_string).collect();
    Contender { name, program: program.to_owned(), arguments, log: None }
}

/// The directory this program runs from, two levels up: `…/target/release/bench`.
fn target_directory() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).map(Path::to_path_buf);
    target.context("this program is not in a target directory")
}

fn cargo(arguments: &[&str], rustflags: Option<&str>, target: &Path) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).arg("--target-dir").arg(target);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    if let Some(flags) = rustflags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments.join(" "));
    Ok(())
}
