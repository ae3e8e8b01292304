//! Writes the request's body to the file the path names; `DELETE` removes it. Answers `done`, or `error: ` and its kind.

use std::{fs, io};

use guest_sdk::{Method, Request, handler};

#[handler]
fn write(request: Request) -> String {
    match change(request) {
        Ok(()) => "done\n".into(),
        Err(error) => format!("error: {:?}\n", error.kind()),
    }
}

fn change(request: Request) -> io::Result<()> {
    let (head, mut body) = request.into_parts();
    if head.method == Method::DELETE {
        return fs::remove_file(head.uri.path());
    }
    let mut file = fs::File::create(head.uri.path())?;
    io::copy(&mut body.reader(), &mut file).map(drop)
}
