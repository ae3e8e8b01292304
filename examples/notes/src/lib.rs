//! A JSON API that keeps its notes in the directory that is granted as `/notes`: a file each, whose name is its number. It serves its own
//! description, too (OpenAPI). Each request has a fresh instance, and what they share is in the directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use guest_sdk::{
    BodyError, IntoResponse, Json, Request, Response, Router, StatusCode, handler,
    header::{CONTENT_TYPE, LOCATION},
};
use serde::{Deserialize, Serialize};

const ROOT: &str = "/notes";

/// Bytes of a request's body.
const MOST: usize = 64 * 1024;

const DESCRIPTION: &str = include_str!("openapi.json");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    id: u64,
    title: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNote {
    title: String,
    text: String,
}

#[handler]
fn notes(request: Request) -> Response {
    serve(Path::new(ROOT), request)
}

fn serve(root: &Path, request: Request) -> Response {
    if !root.is_dir() {
        let missing =
            io::Error::other(format!("no directory is granted as {ROOT}: start with --dir FOLDER::{ROOT}:rw"));
        return Err::<Response, _>(missing).into_response();
    }
    Router::new()
        .get("/openapi.json", |_, _| described())
        .get("/notes", |_, _| all(root).map(Json))
        .post("/notes", |request, _| add(root, request))
        .get("/notes/:id", |_, params| Ok::<_, io::Error>(found(find(root, &params["id"])?.map(Json))))
        .delete("/notes/:id", |_, params| remove(root, &params["id"]))
        .handle(request)
}

fn described() -> Response {
    let mut response = DESCRIPTION.into_response();
    response.headers_mut().insert(CONTENT_TYPE, guest_sdk::HeaderValue::from_static("application/json"));
    response
}

fn found(answer: Option<impl IntoResponse>) -> Response {
    answer.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

fn all(root: &Path) -> io::Result<Vec<Note>> {
    let mut notes = Vec::new();
    for number in numbers(root)? {
        notes.extend(read(root, number)?);
    }
    Ok(notes)
}

/// Of all there are and were, from the first.
fn numbers(root: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root)? {
        numbers.extend(entry?.file_name().to_str().and_then(number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// As it is written here: no sign, and no zeros before it.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn find(root: &Path, id: &str) -> io::Result<Option<Note>> {
    number(id).map_or(Ok(None), |number| read(root, number))
}

/// None: there is no such note, or it is just being written, or it was removed.
fn read(root: &Path, number: u64) -> io::Result<Option<Note>> {
    match fs::read(root.join(number.to_string())) {
        Ok(json) => Ok(serde_json::from_slice(&json).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Bad JSON answers 400, too much of it 413: that is what `BodyError` means.
fn add(root: &Path, mut request: Request) -> Result<Response, Box<dyn std::error::Error>> {
    let is_json = |value: &guest_sdk::HeaderValue| {
        value.to_str().is_ok_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
        })
    };
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        return Ok(StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response());
    }
    let new: NewNote = match request.body_mut().json_up_to(MOST) {
        Ok(new) => new,
        Err(error @ BodyError::Invalid(_)) => return Ok((StatusCode::BAD_REQUEST, error.to_string()).into_response()),
        Err(error) => return Err(error.into()),
    };
    if !(1..=100).contains(&new.title.chars().count()) {
        return Ok((StatusCode::BAD_REQUEST, "a title has 1 to 100 characters").into_response());
    }
    let note = create(root, new)?;
    let location = format!("/notes/{}", note.id).try_into()?;
    let mut response = (StatusCode::CREATED, Json(note)).into_response();
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn create(root: &Path, new: NewNote) -> io::Result<Note> {
    let mut id = numbers(root)?.last().map_or(1, |last| last + 1);
    let mut file = loop {
        match File::create_new(root.join(id.to_string())) {
            Ok(file) => break file,
            // Another request was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => id += 1,
            Err(error) => return Err(error),
        }
    };
    let note = Note { id, title: new.title, text: new.text };
    file.write_all(&serde_json::to_vec(&note)?)?;
    Ok(note)
}

/// Its empty file stays, so that its number is not given again.
fn remove(root: &Path, id: &str) -> io::Result<StatusCode> {
    let Some(note) = find(root, id)? else { return Ok(StatusCode::NOT_FOUND) };
    File::create(root.join(note.id.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use guest_sdk::{Body, RequestBuilder};

    use super::*;

    /// A directory that is gone at the end of its test.
    struct Notes(PathBuf);

    impl Notes {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("notes-{}-{name}", std::process::id()));
            fs::create_dir(&path).expect("is new");
            Self(path)
        }

        fn ask(&self, method: &str, path: &str, body: &'static str) -> Response {
            let request = RequestBuilder::new().method(method).uri(path).header(CONTENT_TYPE, "application/json");
            serve(&self.0, request.body(Body::new(body)).expect("a request"))
        }
    }

    impl Drop for Notes {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn note(mut response: Response) -> Note {
        response.body_mut().json().expect("a note")
    }

    #[test]
    fn what_is_added_is_found_and_what_is_removed_is_not() {
        let notes = Notes::new("added");
        let response = notes.ask("POST", "/notes", r#"{"title": "a", "text": ""}"#);
        assert_eq!((response.status().as_u16(), response.headers()[LOCATION].as_bytes()), (201, &b"/notes/1"[..]));
        let added = note(response);
        assert_eq!(note(notes.ask("GET", "/notes/1", "")), added);
        assert_eq!(note(notes.ask("POST", "/notes", r#"{"title": "b", "text": "c"}"#)).id, 2);
        assert_eq!(notes.ask("DELETE", "/notes/2", "").status(), 204);
        for method in ["GET", "DELETE"] {
            assert_eq!(notes.ask(method, "/notes/2", "").status(), 404);
        }
        assert_eq!(note(notes.ask("POST", "/notes", r#"{"title": "d", "text": ""}"#)).id, 3, "a number is given once");
        let all: Vec<Note> = notes.ask("GET", "/notes", "").into_body().json().expect("a list");
        assert_eq!(all.iter().map(|note| note.id).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let notes = Notes::new("refused");
        for body in ["", "{}", "[]", r#"{"title": "", "text": ""}"#, r#"{"title": "a", "text": "", "id": 1}"#] {
            assert_eq!(notes.ask("POST", "/notes", body).status(), 400, "{body}");
        }
        let plain = RequestBuilder::new().method("POST").uri("/notes").body(Body::new("{}")).expect("a request");
        assert_eq!(serve(&notes.0, plain).status(), 415);
        for id in ["0", "x", "01", "+1", "99999999999999999999"] {
            assert_eq!(notes.ask("GET", &format!("/notes/{id}"), "").status(), 404, "{id}");
        }
    }

    #[test]
    fn the_description_is_json() {
        let notes = Notes::new("described");
        let description: serde_json::Value = notes.ask("GET", "/openapi.json", "").into_body().json().expect("JSON");
        assert_eq!(description["openapi"], "3.1.0");
    }
}
