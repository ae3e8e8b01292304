//! One guest as many modules: the text that it answers with is replaced in the file.

use std::{fs, path::PathBuf};

use super::{Scratch, guest};

/// What version `n` answers.
pub(crate) fn version(n: usize) -> String {
    format!("version-{n:04}")
}

/// The bytes of version `n`.
pub(crate) fn version_bytes(n: usize) -> Vec<u8> {
    let mut bytes = fs::read(guest("says_its_version")).expect("it was built");
    let zero = version(0).into_bytes();
    let places: Vec<_> = (0..bytes.len() - zero.len()).filter(|at| bytes[*at..].starts_with(&zero)).collect();
    assert_eq!(places.len(), 1, "the text is in the guest once");
    bytes[places[0]..places[0] + zero.len()].copy_from_slice(version(n).as_bytes());
    bytes
}

/// Version `n`, as a file.
pub(crate) fn version_file(scratch: &Scratch, n: usize) -> PathBuf {
    scratch.file(&format!("version-{n}.wasm"), version_bytes(n))
}
