//! The configuration file of the host, which reloads read again.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::authority::Authority;
use crate::contenders::Contenders;

pub(super) struct Configuration<'a> {
    pub(super) contenders: &'a Contenders,
    pub(super) version: &'a Path,
    pub(super) authority: &'a Authority,
    pub(super) path: PathBuf,
}

impl Configuration<'_> {
    /// Writes it; `turn` makes it another than before.
    pub(super) fn write(&self, turn: u64) -> Result<()> {
        let package = |name: &str| self.contenders.guest(name);
        let example = |name: &str| self.contenders.example_guest(name).display().to_string();
        let version = self.version.display().to_string();
        let echo = format!("env = {{ TURN = \"{turn}\" }}");
        let handlers = [
            ("hello", package("hello"), "/hello", ""),
            ("echo", package("echo"), "/echo", echo.as_str()),
            ("slow", package("slow"), "/slow", ""),
            ("victim", package("slow"), "/victim", "limits = { deadline = \"1h\" }"),
            ("version", version, "/*", ""),
            ("trap", example("trap_before_head"), "/trap", ""),
            ("late", example("trap_after_head"), "/late", ""),
            ("loop", example("loops_for_ever"), "/loop", "limits = { deadline = \"200ms\", in_flight = 1, queue = 0 }"),
        ];
        // Short time-outs, so that each of them is reached often.
        let mut text =
            "[server]\nheader_timeout = \"2s\"\nidle_timeout = \"5s\"\nwrite_timeout = \"2s\"\nbody_timeout = \"2s\"\n\
            http2_max_control_frames = 1000\ntls_handshake_timeout = \"2s\"\ndrain = \"5s\"\n"
                .to_owned();
        text.push_str(&format!("[server.tls]\ncert = {:?}\nkey = {:?}\n", self.authority.cert, self.authority.key));
        for (name, module, route, more) in handlers {
            let handler = format!("name = {name:?}\nmodule = {module:?}\nroute = {route:?}\n{more}\n");
            text.push_str(&format!("[[handler]]\n{handler}"));
        }
        // Not half of it is read, whenever that is.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, &self.path)?)
    }
}
