//! Serves the directory that is granted as `/www`, with plain `std::fs`.
//!
//! Nothing outside of it can be reached: a path with `..` is refused here, and what the host does not grant does not exist for a guest.

mod range;

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use guest_sdk::{
    Body, HeaderValue, IntoResponse, Method, Request, Response, StatusCode, handler,
    header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
};

use range::Part;

const ROOT: &str = "/www";

#[handler]
fn files(request: Request) -> io::Result<Response> {
    serve(Path::new(ROOT), &request)
}

fn serve(root: &Path, request: &Request) -> io::Result<Response> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    if !root.is_dir() {
        return Err(io::Error::other(format!("no directory is granted as {ROOT}: start with --dir FOLDER::{ROOT}")));
    }
    let Some(mut path) = inside(root, request.uri().path()) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    if path.is_dir() {
        path.push("index.html");
    } else if request.uri().path().ends_with('/') {
        return Ok(StatusCode::NOT_FOUND.into_response());
    }
    let length = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Ok(StatusCode::NOT_FOUND.into_response()),
        Err(error) if is_no_name(&error) => return Ok(StatusCode::NOT_FOUND.into_response()),
        Err(error) => return Err(error),
    };
    let part = if request.method() == Method::GET { range::part(request.headers(), length) } else { Part::Whole };
    let (status, bytes) = match part {
        Part::Whole => (StatusCode::OK, 0..length),
        Part::Bytes(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Part::Unsatisfiable => {
            let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
            response.headers_mut().insert(CONTENT_RANGE, header(format!("bytes */{length}"))?);
            return Ok(response);
        }
    };
    let mut file = File::open(&path)?;
    file.seek(SeekFrom::Start(bytes.start))?;
    let mut response = Response::new(Body::wrap_reader(file.take(bytes.end - bytes.start)));
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    if status == StatusCode::PARTIAL_CONTENT {
        headers.insert(CONTENT_RANGE, header(format!("bytes {}-{}/{length}", bytes.start, bytes.end - 1))?);
    }
    *response.status_mut() = status;
    Ok(response)
}

/// There is no file of that name, or there can be none, or it is a link to what was not granted.
fn is_no_name(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | PermissionDenied)
}

fn header(text: String) -> io::Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(io::Error::other)
}

/// The file a URI path means, or `None` if a segment of it is not a plain name.
fn inside(root: &Path, uri_path: &str) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for segment in uri_path.split('/').filter(|segment| !segment.is_empty()) {
        let name = decode(segment)?;
        if name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
            return None;
        }
        path.push(name);
    }
    Some(path)
}

/// Undoes percent-encoding (RFC 3986 2.1).
fn decode(segment: &str) -> Option<String> {
    let mut decoded = Vec::new();
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || (bytes.next()? as char).to_digit(16);
            (digit()? * 16 + digit()?) as u8
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "txt" | "md" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use guest_sdk::RequestBuilder;

    use super::*;

    fn ask(path: &str) -> Response {
        let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("public");
        let request = RequestBuilder::new().uri(path).body(Body::empty()).expect("a request");
        serve(&public, &request).expect("a readable directory")
    }

    #[test]
    fn a_directory_is_its_index() {
        let response = ask("/");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(response.into_body().text().expect("text").contains("<h1>"));
        assert_eq!(ask("/%69ndex.html").status(), 200);
    }

    #[test]
    fn a_part_of_a_file_can_be_had_and_of_more_than_it_has_nothing() {
        let public = Path::new(env!("CARGO_MANIFEST_DIR")).join("public");
        let file = fs::read(public.join("index.html")).expect("ours");
        let ask = |method: Method, range: &str| {
            let request = RequestBuilder::new().method(method).uri("/index.html").header("range", range);
            serve(&public, &request.body(Body::empty()).expect("a request")).expect("a readable directory")
        };
        let part = ask(Method::GET, "bytes=2-5");
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()[CONTENT_RANGE], format!("bytes 2-5/{}", file.len()));
        assert_eq!(part.headers()[CONTENT_LENGTH], "4");
        assert_eq!(part.into_body().bytes().expect("a file"), file[2..6]);
        let beyond = ask(Method::GET, "bytes=99999-");
        assert_eq!(
            (beyond.status().as_u16(), &beyond.headers()[CONTENT_RANGE]),
            (416, &header(format!("bytes */{}", file.len())).expect("a value"))
        );
        let whole = ask(Method::HEAD, "bytes=2-5");
        assert_eq!((whole.status().as_u16(), &whole.headers()[CONTENT_LENGTH]), (200, &HeaderValue::from(file.len())));
    }

    #[test]
    fn nothing_outside_is_reached() {
        for path in [
            "/../Cargo.toml",
            "/%2e%2e/Cargo.toml",
            "/..%2fCargo.toml",
            "/x/../../Cargo.toml",
            "/index.html/",
            "/index.html/x",
            "/missing",
            &format!("/{}", "x".repeat(3000)),
        ] {
            assert_eq!(ask(path).status(), 404, "{path}");
        }
    }

    #[test]
    fn without_a_grant_the_author_is_told_what_to_do() {
        let request = Request::new(Body::empty());
        let error = serve(Path::new("/does/not/exist"), &request).expect_err("no such directory");
        assert!(error.to_string().contains("--dir"));
    }
}
