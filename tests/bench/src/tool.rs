//! A program of others that a contender needs: the one that was named or the one in PATH, and the version it says it has.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

pub(crate) struct Tool {
    pub(crate) program: PathBuf,
    pub(crate) version: String,
}

impl Tool {
    /// `None` if none was named and there is none in PATH.
    ///
    /// # Errors
    ///
    /// The one that was named does not run.
    pub(crate) fn find(named: Option<&Path>, name: &str) -> Result<Option<Tool>> {
        let program = named.unwrap_or(Path::new(name)).to_owned();
        let output = Command::new(&program).arg("--version").output();
        ensure!(output.is_ok() || named.is_none(), "cannot run {}", program.display());
        let version = |stdout: &[u8]| String::from_utf8_lossy(stdout).trim().to_owned();
        Ok(output.ok().map(|output| Tool { program, version: version(&output.stdout) }))
    }
}
