//! A small JSON API over data that is in the guest itself. Each request has a fresh instance, so nothing that a request adds stays.

use guest_sdk::{BodyError, IntoResponse, Json, Request, Response, Router, StatusCode, handler, header::LOCATION};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    #[serde(default)]
    id: usize,
    title: String,
    year: u16,
}

const BOOKS: [(&str, u16); 3] = [("Frankenstein", 1818), ("Walden", 1854), ("Middlemarch", 1871)];

#[handler]
fn library(request: Request) -> Response {
    Router::new()
        .get("/books", |_, _| Json(books()))
        .get("/books/:id", |_, params| {
            match params["id"].parse::<usize>().ok().and_then(|id| book(id.checked_sub(1)?)) {
                Some(book) => Json(book).into_response(),
                None => not_found(),
            }
        })
        .post("/books", |request, _| add(request))
        .handle(request)
}

fn books() -> Vec<Book> {
    (0..BOOKS.len()).filter_map(book).collect()
}

fn book(index: usize) -> Option<Book> {
    let (title, year) = BOOKS.get(index)?;
    Some(Book { id: index + 1, title: (*title).to_owned(), year: *year })
}

/// Bad JSON answers 400, too much of it 413: that is what `BodyError` means.
fn add(mut request: Request) -> Result<Response, BodyError> {
    let mut book: Book = request.body_mut().json_up_to(64 * 1024)?;
    book.id = BOOKS.len() + 1;
    let location = format!("/books/{}", book.id);
    let mut response = (StatusCode::CREATED, Json(book)).into_response();
    if let Ok(location) = location.try_into() {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

fn not_found() -> Response {
    #[derive(Serialize)]
    struct Problem {
        error: &'static str,
    }
    (StatusCode::NOT_FOUND, Json(Problem { error: "no such book" })).into_response()
}

#[cfg(test)]
mod tests {
    use guest_sdk::{Body, RequestBuilder};

    use super::*;

    fn ask(method: &str, path: &str, body: &'static str) -> Response {
        library(RequestBuilder::new().method(method).uri(path).body(Body::new(body)).expect("a request"))
    }

    #[test]
    fn lists_and_finds_books() {
        let all: Vec<Book> = ask("GET", "/books", "").into_body().json().expect("JSON");
        assert_eq!(all.len(), 3);
        let second: Book = ask("GET", "/books/2", "").into_body().json().expect("JSON");
        assert_eq!(second, all[1]);
        for path in ["/books/0", "/books/4", "/books/x"] {
            assert_eq!(ask("GET", path, "").status(), 404);
        }
    }

    #[test]
    fn adds_a_book() {
        let mut response = ask("POST", "/books", r#"{"title": "Emma", "year": 1815}"#);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LOCATION]),
            (201, "/books/4".parse().as_ref().expect("valid"))
        );
        assert_eq!(response.body_mut().json::<Book>().expect("JSON").title, "Emma");
    }

    #[test]
    fn a_body_that_is_no_book_is_400() {
        assert_eq!(ask("POST", "/books", "{}").status(), 400);
    }

    #[test]
    fn a_method_that_is_not_there_is_405() {
        assert_eq!(ask("DELETE", "/books/1", "").headers()["allow"], "GET, HEAD");
    }
}
