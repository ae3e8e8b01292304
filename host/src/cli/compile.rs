//! `astra-host compile`: compiles a module ahead of time, for `run --trust-precompiled` on the same kind of machine. And what a host
//! that serves starts to compile a module that it is given, hidden from people: `compile --for-host` (`compiler.rs`).

use std::{
    io::{self, Read, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;

use super::{say, spinner::Spinner};
use crate::{
    compiler,
    config::{self, Config},
    guest::{self, CacheMode, Engine},
    host::engine_options,
    whole_file,
};

/// Compile a module ahead of time
#[derive(Args)]
pub(super) struct Compile {
    /// A .wasm file
    #[arg(value_name = "FILE", required_unless_present = "for_host")]
    path: Option<PathBuf>,
    /// Where to write the machine code [default: FILE with the extension .cwasm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The standard input to the standard output, with so many bytes of memory
    #[arg(long, hide = true, value_name = "BYTES", conflicts_with_all = ["path", "output"])]
    for_host: Option<u64>,
    /// Compile anew and keep nothing on disk
    #[arg(long, hide = true, requires = "for_host")]
    no_cache: bool,
}

impl Compile {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        if let Some(memory) = self.for_host {
            return for_host(memory, if self.no_cache { CacheMode::Off } else { CacheMode::On });
        }
        // clap has made sure of a path.
        let path = self.path.unwrap_or_default();
        let output = self.output.unwrap_or_else(|| path.with_extension("cwasm"));
        let mut config = Config::new(&path);
        config.server.cache = CacheMode::Off;
        let compiled = {
            let _spinner = Spinner::start(format!("compiling {}", path.display()));
            let engine = Engine::new(&engine_options(&config)).context("cannot set up the engine")?;
            guest::precompile(&engine, &path)?
        };
        whole_file::write(&output, |file| file.write_all(&compiled))
            .with_context(|| format!("cannot write `{}`", output.display()))?;
        let size = config::format_size(compiled.len() as u64);
        say(&format!("{}: {size}, for `astra-host run --trust-precompiled`", output.display()));
        Ok(())
    }
}

fn for_host(memory: u64, cache: CacheMode) -> anyhow::Result<()> {
    compiler::confine(memory).context("cannot be confined")?;
    let mut module = Vec::new();
    io::stdin().read_to_end(&mut module)?;
    let (code, cached) = guest::compile_for_host(cache, &module).map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let mut out = io::stdout().lock();
    out.write_all(if cached { compiler::CACHED } else { compiler::COMPILED }.as_bytes())?;
    out.write_all(&code)?;
    Ok(out.flush()?)
}
