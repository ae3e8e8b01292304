//! `astra-host compile`: compiles a module ahead of time, for `run --trust-precompiled` on the same kind of machine.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;

use super::{say, spinner::Spinner};
use crate::{
    config::{self, Config},
    guest::{self, CacheMode, Engine},
    host::engine_options,
};

/// Compile a module ahead of time
#[derive(Args)]
pub(super) struct Compile {
    /// A .wasm file
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// Where to write the machine code [default: FILE with the extension .cwasm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Compile {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let output = self.output.unwrap_or_else(|| self.path.with_extension("cwasm"));
        let mut config = Config::new(&self.path);
        config.server.cache = CacheMode::Off;
        let compiled = {
            let _spinner = Spinner::start(format!("compiling {}", self.path.display()));
            let engine = Engine::new(&engine_options(&config)).context("cannot set up the engine")?;
            guest::precompile(&engine, &self.path)?
        };
        write_whole(&output, &compiled).with_context(|| format!("cannot write `{}`", output.display()))?;
        let size = config::format_size(compiled.len() as u64);
        say(&format!("{}: {size}, for `astra-host run --trust-precompiled`", output.display()));
        Ok(())
    }
}

/// Writes a file so that nobody ever sees half of it: under another name first, in the same directory.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let unfinished = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = File::create_new(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_over() {
        let dir = std::env::temp_dir().join(format!("astra-host-compile-{}", std::process::id()));
        fs::create_dir(&dir).expect("is new");
        let path = dir.join("app.cwasm");
        write_whole(&path, b"old and long").expect("writes");
        write_whole(&path, b"new").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"new");
        assert!(write_whole(&dir.join("none/app.cwasm"), b"new").is_err());
        assert_eq!(fs::read_dir(&dir).expect("lists").count(), 1);
        fs::remove_dir_all(&dir).expect("removes");
    }
}
