//! `astra-host check`: says whether a configuration file can be served, without serving it.
//!
//! All that is wrong is said, a line each. A file that is wrong is a failure (1), not wrong usage (2): the command was typed correctly, and
//! a script that deploys wants to tell the two apart.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::bail;
use clap::Args;

use super::{complain, say};
use crate::{
    certificates,
    config::{HandlerConfig, format_size},
    config_file,
    gate::{Gate, Probes},
    guest::{Engine, ModuleFile},
    host::engine_options,
    package,
    request_id::RequestIds,
    router::Router,
};

/// Check a configuration file: keys and values, routes, grants, certificates, and that every module loads
#[derive(Args)]
pub(super) struct Check {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the configuration with all defaults, as TOML; references (`${env:…}`) are shown as they were written
    #[arg(long)]
    print: bool,
    /// Also let each module answer the probe of its handler
    #[arg(long)]
    probe: bool,
}

impl Check {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let file = config_file::read(&self.file, |name| env::var(name).ok())?;
        if self.print {
            say(file.print().trim_end());
        }
        let router = file.config.router()?;
        let gate = Gate {
            engine: Engine::new(&engine_options(&file.config))?,
            trust_precompiled: file.config.server.trust_precompiled,
            compiler: None,
            ids: Arc::new(RequestIds::new()),
            log: None,
            probes: Probes::default(),
        };
        let (mut lines, mut problems) = (Vec::new(), Vec::new());
        let mut warnings = Vec::new();
        for (index, files) in file.config.server.tls.iter().enumerate() {
            match certificates::read_entry(index, files) {
                Ok(certified) => warnings.extend(certificates::warnings(files, &certified)),
                Err(error) => {
                    problems.push(format!("{}: [server]: {:#}", self.file.display(), anyhow::Error::from(error)));
                }
            }
        }
        for handler in &file.config.handlers {
            match self.check(handler, &gate, &router) {
                Ok(module) => lines.push((handler, module)),
                Err(error) => {
                    problems.push(format!("{}: handler `{}`: {error:#}", self.file.display(), handler.name));
                }
            }
        }
        for warning in warnings {
            complain(&format!("warning: {}: [server]: {warning}\n", self.file.display()));
        }
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        if !self.print {
            let count = file.config.handlers.len();
            say(&format!("{}: ok, {count} handler{}", self.file.display(), if count == 1 { "" } else { "s" }));
            for (handler, module) in lines {
                say(&self.line(handler, &module));
            }
        }
        Ok(())
    }

    /// What is known about the handler's module when all is well.
    fn check(&self, handler: &HandlerConfig, gate: &Gate, router: &Router) -> anyhow::Result<String> {
        let mut handler = handler.clone();
        handler.grants.check()?;
        if handler.module.is_dir() {
            package::manifest_in(&handler.module)?;
            return Ok("Cargo package, not built".to_owned());
        }
        if !self.probe {
            handler.probe = None;
        }
        let admitted = gate.admit(ModuleFile::read(&handler.module)?, None, &handler, router)?;
        let info = admitted.module.info();
        let probed = admitted.probed.map(|probed| format!(", probe {} in {:.1} ms", probed.status, probed.ms));
        Ok(format!("{}, {}{}", info.kind, format_size(info.size), probed.unwrap_or_default()))
    }

    /// `hello  /hello/*  hello.wasm  component, WASI HTTP 0.2.3, 66.2KiB`
    fn line(&self, handler: &HandlerConfig, module: &str) -> String {
        let routes = handler.routes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let file = std::path::absolute(&self.file).ok();
        let folder = file.as_deref().and_then(Path::parent);
        let path = folder.and_then(|folder| handler.module.strip_prefix(folder).ok()).unwrap_or(&handler.module);
        format!("{}  {routes}  {}  {module}", handler.name, path.display())
    }
}
