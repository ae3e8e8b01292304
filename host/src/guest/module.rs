//! What is in a file that a user hands us, before any engine sees it.
//!
//! A walk over the outermost sections with `wasmparser`: kind, imports, exports, and the grants that they hint at. Versions
//! are compared as semver compares them, never as strings: guests of the same world say `@0.2.0`, `@0.2.3`, `@0.2.12`…
//! Pure, and quick enough for every start: nothing is validated here, compiling does that.

use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};

use super::{
    core_module::CoreModule,
    draft,
    engine::Calls,
    linker::{self, is_of_line},
    load_error::LoadError,
    preview1,
};

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A component that exports `wasi:http/incoming-handler` of this 0.2 version.
    HttpHandler {
        /// The version that it says.
        version: String,
    },
    /// A component that exports `wasi:http/handler` of this 0.3 version, whatever else it exports.
    HttpHandler03 {
        /// The version that it says.
        version: String,
    },
    /// A component that exports `wasi:cli/run` of this version and no HTTP handler: a CGI program.
    Command {
        /// The version that it says.
        version: String,
    },
    /// A core module that exports `_start`, as programs for WASI 0.1 do: a CGI program.
    CommandModule,
    /// Another component.
    Component,
    /// Another core module.
    CoreModule {
        /// What it would need to be a program.
        lacks: &'static str,
    },
    /// Compiled code of wasmtime's (`.cwasm`).
    Precompiled,
}

impl Kind {
    /// How guests of this kind are called.
    pub(crate) fn calls(&self) -> Calls {
        match self {
            Self::HttpHandler03 { .. } => Calls::Concurrent,
            Self::Command { version } if is_of_line(version, "0.3.") => Calls::Concurrent,
            _ => Calls::Blocking,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HttpHandler { version } => write!(f, "component, WASI HTTP {version}"),
            Self::HttpHandler03 { version } => write!(f, "component, WASI HTTP {version}"),
            Self::Command { version } => write!(f, "CGI program, a component that exports `wasi:cli/run` {version}"),
            Self::CommandModule => f.write_str("CGI program, a core module that exports `_start`"),
            Self::Component => f.write_str("component without an HTTP handler"),
            Self::CoreModule { lacks } => write!(f, "core module without {lacks}"),
            Self::Precompiled => f.write_str("precompiled module"),
        }
    }
}

/// Something that a guest may not work without, guessed from what it imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// `--dir`.
    Files,
    /// `--env`.
    Environment,
    /// `--tcp`, `--dns`.
    Network,
    /// `--outbound`.
    OutgoingHttp,
    /// `--config-var`.
    Config,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "files (`--dir`)",
            Self::Environment => "environment variables (`--env`)",
            Self::Network => "network (`--tcp`, `--dns`)",
            Self::OutgoingHttp => "outgoing HTTP (`--outbound`)",
            Self::Config => "configuration values (`--config-var`)",
        })
    }
}

/// What can be said about a file without running it.
#[derive(Debug, Clone)]
pub struct ModuleInfo {
    /// What it is.
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// Names of its imports, in order, each once.
    pub imports: Vec<String>,
    /// Names of its exports, in order.
    pub exports: Vec<String>,
    /// Grants that it may need.
    pub needs: Vec<Need>,
}

/// Looks at a file without an engine.
///
/// # Errors
/// It cannot be read, is no regular file, or is no WebAssembly. Modules that are WebAssembly but cannot be served are no error here.
pub fn inspect(path: &Path) -> Result<ModuleInfo, LoadError> {
    ModuleFile::read(path).map(|file| file.info)
}

/// A file and what is in it: read once, so that what was looked at is what is loaded. The bytes say of no interface that it is a draft which
/// is accepted.
pub(crate) struct ModuleFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) info: ModuleInfo,
}

impl ModuleFile {
    /// # Errors
    /// As [`inspect`].
    pub(crate) fn read(path: &Path) -> Result<Self, LoadError> {
        let read = |source| LoadError::Read { path: path.to_owned(), source };
        let found = fs::metadata(path).map_err(read)?;
        // Opening a pipe would wait for its other end.
        if !found.is_file() {
            let found = if found.is_dir() { "a directory" } else { "a pipe, a socket or a device" };
            return Err(LoadError::NotWasm { path: path.to_owned(), found });
        }
        let mut bytes = fs::read(path).map_err(read)?;
        let info = recognise(path, &bytes)?;
        if info.imports.iter().chain(&info.exports).any(|name| draft::is_in(name)) {
            draft::make_release(&mut bytes);
        }
        Ok(Self { path: path.to_owned(), bytes, info })
    }
}

fn recognise(path: &Path, bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
    let mut info = ModuleInfo {
        kind: Kind::Precompiled,
        size: bytes.len() as u64,
        digest: hex(&Sha256::digest(bytes)),
        imports: Vec::new(),
        exports: Vec::new(),
        needs: Vec::new(),
    };
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Ok(info);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(match bytes {
            _ if !bytes.is_empty() && b"\0asm".starts_with(bytes) => {
                LoadError::Truncated { path: path.to_owned(), size: info.size }
            }
            _ => LoadError::NotWasm { path: path.to_owned(), found: guess(bytes) },
        });
    }
    info.kind = scan(bytes, &mut info.imports, &mut info.exports).map_err(|source| {
        // The one error whose cause is nearly always a copy that was cut short.
        if source.message().contains("unexpected end") {
            LoadError::Truncated { path: path.to_owned(), size: info.size }
        } else {
            LoadError::Malformed { path: path.to_owned(), source }
        }
    })?;
    info.needs = needs(&info.imports);
    Ok(info)
}

/// The interface that an import or export names, without its version: all releases of a line are compatible.
pub(crate) fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _version)| interface)
}

/// What is in WebAssembly that has been looked at before.
///
/// # Errors
/// It is malformed.
pub(crate) fn kind(bytes: &[u8]) -> Result<Kind, wasmparser::BinaryReaderError> {
    scan(bytes, &mut Vec::new(), &mut Vec::new())
}

/// Collects the outermost imports and exports.
fn scan(
    bytes: &[u8],
    imports: &mut Vec<String>,
    exports: &mut Vec<String>,
) -> Result<Kind, wasmparser::BinaryReaderError> {
    let mut depth = 0_usize;
    let mut component = false;
    let mut core = CoreModule::default();
    // Go imports some functions twice.
    let mut imported = HashSet::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if depth == 0 {
            core.note(&payload)?;
        }
        match payload {
            Payload::Version { encoding, .. } if depth == 0 => component = encoding == wasmparser::Encoding::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let import = import?;
                    if imported.insert((import.module, import.name)) {
                        imports.push(format!("{}::{}", import.module, import.name));
                    }
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.to_owned());
                }
            }
            _ => {}
        }
    }
    if component {
        return Ok(component_kind(&exports.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    Ok(core.lacks().map_or(Kind::CommandModule, |lacks| Kind::CoreModule { lacks }))
}

/// What a component with these exports is. The newer of two handlers counts, and any handler before `wasi:cli/run`, which toolchains
/// export beside it.
pub(crate) fn component_kind(exports: &[&str]) -> Kind {
    let version_of = |interface, line| {
        let mut versions = exports.iter().filter_map(|name| name.strip_prefix(interface)?.strip_prefix('@'));
        versions.find(|version| is_of_line(version, line)).map(str::to_owned)
    };
    if let Some(version) = version_of("wasi:http/handler", "0.3.") {
        return Kind::HttpHandler03 { version };
    }
    if let Some(version) = version_of("wasi:http/incoming-handler", "0.2.") {
        return Kind::HttpHandler { version };
    }
    let run = version_of("wasi:cli/run", "0.3.").or_else(|| version_of("wasi:cli/run", "0.2."));
    run.map_or(Kind::Component, |version| Kind::Command { version })
}

/// The first import that guests of its kind do not get.
fn missing_import(info: &ModuleInfo) -> Option<&str> {
    let is_provided = |name: &&String| match info.kind {
        Kind::CommandModule => preview1::provides(name),
        _ => linker::provides(info.kind.calls(), name),
    };
    info.imports.iter().find(|name| !is_provided(name)).map(String::as_str)
}

fn needs(imports: &[String]) -> Vec<Need> {
    let hints: [(Need, &[&str]); 5] = [
        (Need::Files, &["wasi:filesystem/", "wasi_snapshot_preview1::path_open"]),
        (Need::Environment, &["wasi:cli/environment", "wasi_snapshot_preview1::environ_get"]),
        (Need::Network, &["wasi:sockets/"]),
        (Need::OutgoingHttp, &["wasi:http/outgoing-handler", "wasi:http/client"]),
        (Need::Config, &["wasi:config/"]),
    ];
    let is_hinted =
        |prefixes: &[&str]| imports.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    hints.into_iter().filter(|(_, prefixes)| is_hinted(prefixes)).map(|(need, _)| need).collect()
}

/// What a file that is not WebAssembly seems to be.
fn guess(bytes: &[u8]) -> &'static str {
    let text = std::str::from_utf8(&bytes[..bytes.len().min(512)]).unwrap_or_default().trim_start();
    match bytes {
        [] => "empty",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [b'P', b'K', 3, 4, ..] => "a compressed file",
        [0x7f, b'E', b'L', b'F', ..] => "a native program",
        _ if text.starts_with("(module") || text.starts_with("(component") || text.starts_with(";;") => {
            "WebAssembly text (`wasm-tools parse` makes it binary)"
        }
        _ if text.starts_with("#!") => "a script",
        _ if text.is_empty() => "a binary file of another kind",
        _ => "a text file",
    }
}

/// Bytes as text, two digits each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl ModuleInfo {
    /// Whether this is what is served, as far as that can be said without compiling it.
    ///
    /// # Errors
    /// What it is instead, or what it imports that is not provided.
    pub(crate) fn require_served(&self, path: &Path) -> Result<(), LoadError> {
        let path = path.to_owned();
        match &self.kind {
            Kind::HttpHandler { .. }
            | Kind::HttpHandler03 { .. }
            | Kind::Command { .. }
            | Kind::CommandModule
            | Kind::Precompiled => match missing_import(self) {
                Some(import) => Err(LoadError::MissingImport { path, import: import.to_owned() }),
                None => Ok(()),
            },
            Kind::CoreModule { lacks } => Err(LoadError::CoreModule { path, lacks }),
            Kind::Component if self.exports.is_empty() => Err(LoadError::NoHandler { path, found: "nothing".into() }),
            Kind::Component => {
                let found = self.exports.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                Err(LoadError::NoHandler { path, found })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(bytes: &[u8]) -> Result<ModuleInfo, LoadError> {
        recognise(Path::new("app.wasm"), bytes)
    }

    fn refusal(wat: &str) -> String {
        let info = recognised(&wat::parse_str(wat).expect("valid text")).expect("WebAssembly");
        info.require_served(Path::new("app.wasm")).expect_err("not a handler").to_string()
    }

    #[test]
    fn other_files_are_named() {
        let text = |bytes: &[u8]| recognised(bytes).expect_err("not WebAssembly").to_string();
        assert!(text(b"(module)").contains("is WebAssembly text"));
        assert!(text(b"hello").contains("is a text file, not binary WebAssembly; accepted is a component"));
        assert!(text(b"").contains("is empty"));
        assert!(text(b"\x7fELF\x02\x01\x01").contains("is a native program"));
        assert!(text(b"\x1f\x8b\x08").contains("is a compressed file"));
    }

    #[test]
    fn a_truncated_file_is_called_truncated() {
        let whole = wat::parse_str("(component (core module (func)))").expect("valid text");
        for length in [2, 6, whole.len() - 1] {
            let error = recognised(&whole[..length]).expect_err("truncated");
            assert!(matches!(error, LoadError::Truncated { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn a_core_module_is_told_what_to_do() {
        assert!(refusal("(module)").contains("wasm32-wasip2"));
    }

    #[test]
    fn a_component_with_other_exports_is_told_which() {
        assert!(refusal("(component)").contains("exports nothing"));
        let other = r#"(component (instance $i) (export "acme:db/query@0.2.3" (instance $i)))"#;
        assert!(refusal(other).contains("exports `acme:db/query@0.2.3`"));
    }

    #[test]
    fn every_release_of_a_line_is_the_same_kind() {
        for version in ["0.2.0", "0.2.3", "0.2.12", "0.2.99"] {
            let exports = [&*format!("wasi:http/incoming-handler@{version}"), "wasi:cli/run@0.2.0"];
            assert_eq!(component_kind(&exports), Kind::HttpHandler { version: version.to_owned() });
        }
        for version in ["0.2.0-rc-2023-12-05", "0.3.0", "0.20.0"] {
            assert_eq!(component_kind(&[&format!("wasi:http/incoming-handler@{version}")]), Kind::Component);
        }
        for (version, is_served) in
            [("0.3.0-rc-2026-03-15", true), ("0.3.0+build", true), ("0.3.0-rc-2026-01-06", false)]
        {
            let kind = component_kind(&[&format!("wasi:http/handler@{version}")]);
            assert_eq!(matches!(kind, Kind::HttpHandler03 { .. }), is_served, "{version}");
        }
        let both = ["wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.3.2"];
        assert_eq!(component_kind(&both), Kind::HttpHandler03 { version: "0.3.2".to_owned() });
        assert_eq!(component_kind(&["wasi:cli/run@0.2.6"]), Kind::Command { version: "0.2.6".to_owned() });
        assert_eq!(component_kind(&["wasi:cli/run@0.2.6", "wasi:cli/run@0.3.0"]).calls(), Calls::Concurrent);
    }

    #[test]
    fn a_program_of_wasi_0_1_is_told_by_its_start() {
        let program = r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func))
            (import "wasi_snapshot_preview1" "path_open" (func))
            (import "wasi_snapshot_preview1" "environ_get" (func))
            (import "wasi_snapshot_preview1" "fd_write" (func))
            (memory (export "memory") 1)
            (func (export "_start")))"#;
        let info = recognised(&wat::parse_str(program).expect("valid text")).expect("WebAssembly");
        assert_eq!((info.kind.clone(), missing_import(&info)), (Kind::CommandModule, None));
        let imports = ["fd_write", "path_open", "environ_get"].map(|name| format!("wasi_snapshot_preview1::{name}"));
        assert_eq!(info.imports, imports, "each once");
        assert_eq!(info.needs, [Need::Files, Need::Environment]);
        let older = r#"(module (import "wasi_unstable" "fd_write" (func)) (func (export "_start")))"#;
        let info = recognised(&wat::parse_str(older).expect("valid text")).expect("WebAssembly");
        assert_eq!(missing_import(&info), Some("wasi_unstable::fd_write"));
    }

    #[test]
    fn a_missing_import_is_named() {
        let wat = r#"(component (import "wasi:io/error@0.2.9" (instance)) (import "acme:db/query@1.0.0" (instance)))"#;
        let info = recognised(&wat::parse_str(wat).expect("valid text")).expect("WebAssembly");
        assert_eq!(missing_import(&info), Some("acme:db/query@1.0.0"));
        assert_eq!(info.kind, Kind::Component);
        assert_eq!(info.digest.len(), 64);
    }
}
