//! A module on its way in: written to a file as it arrives, never held in memory, and gone from the disk whatever becomes of it.
//! Runs on the worker of its request.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use astra_server::Body;
use http::StatusCode;

use super::route::Refused;
use crate::config::format_size;

/// A whole module in a file of its own, which goes with this.
#[derive(Debug)]
pub(super) struct Upload(PathBuf);

impl Upload {
    /// Writes `body`, at most `max` bytes, to a new file in `dir`.
    pub(super) fn receive(body: &mut Body, max: u64, dir: &Path) -> Result<Self, Refused> {
        if http_body::Body::size_hint(body).lower() > max {
            return Err(too_large(max));
        }
        let cannot_keep = |error: io::Error| {
            let text = format!("the module cannot be kept in `{}`: {error}", dir.display());
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text)
        };
        let (upload, mut file) = Self::create(dir).map_err(cannot_keep)?;
        let mut length = 0;
        for chunk in body {
            let chunk = chunk.map_err(|error| Refused::bad(format!("the module did not arrive whole: {error}")))?;
            length += chunk.len() as u64;
            if length > max {
                return Err(too_large(max));
            }
            file.write_all(&chunk).map_err(cannot_keep)?;
        }
        if length == 0 {
            return Err(Refused::bad("there is no module: send it as the body (`curl --data-binary @new.wasm`)"));
        }
        Ok(upload)
    }

    fn create(dir: &Path) -> io::Result<(Self, File)> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: each only has to be another number.
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("upload-{}-{number}.wasm", process::id()));
            match File::options().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((Self(path), file)),
                // Of a host that was killed and had our number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("cannot remove `{}`: {error}", self.0.display());
        }
    }
}

fn too_large(max: u64) -> Refused {
    let text =
        format!("the module is larger than {}, which is the most that is taken (`max_module`)", format_size(max));
    Refused::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}
