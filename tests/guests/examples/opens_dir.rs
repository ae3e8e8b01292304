//! Opens what the path names: answers with a directory's names, a file's content, or `error: ` and its kind.

use std::{fs, io};

use guest_sdk::{Request, handler};

#[handler]
fn open(request: Request) -> String {
    read(request.uri().path()).unwrap_or_else(|error| format!("error: {:?}\n", error.kind()))
}

fn read(path: &str) -> io::Result<String> {
    if !fs::metadata(path)?.is_dir() {
        return fs::read_to_string(path);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(format!("{}\n", entry?.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(names.concat())
}
