//! A small router: method and path pattern to handler. Pure; built anew for each request, so it is a list and nothing more.

use http::{HeaderValue, Method, StatusCode, header::ALLOW};

use crate::{Body, IntoResponse, Request, Response, response::with_status};

type Handler<'a> = Box<dyn Fn(Request, &Params) -> Response + 'a>;

/// Gives each request to the first route whose method and path pattern match.
///
/// A pattern is a path; a segment of it that begins with `:` matches any one segment that is not empty. Segments are percent-decoded
/// one by one, so `%2F` never splits. A path that is only known for other methods answers 405 with `allow`, an unknown one 404. `HEAD`
/// falls to `GET`.
///
/// ```
/// use guest_sdk::{handler, Body, Request, RequestBuilder, Response, Router};
///
/// #[handler]
/// fn app(request: Request) -> Response {
///     Router::new()
///         .get("/", |_, _| "hello")
///         .get("/users/:name", |_, params| format!("hello {}", &params["name"]))
///         .handle(request)
/// }
///
/// let request = RequestBuilder::new().uri("/users/ada%20l").body(Body::empty()).unwrap();
/// assert_eq!(app(request).into_body().text().unwrap(), "hello ada l");
/// ```
#[derive(Default)]
pub struct Router<'a> {
    routes: Vec<Route<'a>>,
}

struct Route<'a> {
    method: Method,
    pattern: &'a str,
    handler: Handler<'a>,
}

impl<'a> Router<'a> {
    /// A router without routes: it answers 404.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route.
    pub fn route<R: IntoResponse>(
        mut self,
        method: Method,
        pattern: &'a str,
        handler: impl Fn(Request, &Params) -> R + 'a,
    ) -> Self {
        let handler = Box::new(move |request: Request, params: &Params| handler(request, params).into_response());
        self.routes.push(Route { method, pattern, handler });
        self
    }

    /// Adds a route for `GET`, and for `HEAD` unless that has one of its own before it.
    pub fn get<R: IntoResponse>(self, pattern: &'a str, handler: impl Fn(Request, &Params) -> R + 'a) -> Self {
        self.route(Method::GET, pattern, handler)
    }

    /// Adds a route for `POST`.
    pub fn post<R: IntoResponse>(self, pattern: &'a str, handler: impl Fn(Request, &Params) -> R + 'a) -> Self {
        self.route(Method::POST, pattern, handler)
    }

    /// Adds a route for `PUT`.
    pub fn put<R: IntoResponse>(self, pattern: &'a str, handler: impl Fn(Request, &Params) -> R + 'a) -> Self {
        self.route(Method::PUT, pattern, handler)
    }

    /// Adds a route for `PATCH`.
    pub fn patch<R: IntoResponse>(self, pattern: &'a str, handler: impl Fn(Request, &Params) -> R + 'a) -> Self {
        self.route(Method::PATCH, pattern, handler)
    }

    /// Adds a route for `DELETE`.
    pub fn delete<R: IntoResponse>(self, pattern: &'a str, handler: impl Fn(Request, &Params) -> R + 'a) -> Self {
        self.route(Method::DELETE, pattern, handler)
    }

    /// Answers one request.
    pub fn handle(&self, request: Request) -> Response {
        let mut allowed: Vec<&Method> = Vec::new();
        for route in &self.routes {
            let Some(params) = matches(route.pattern, request.uri().path()) else {
                continue;
            };
            if route.method == *request.method() || (route.method == Method::GET && *request.method() == Method::HEAD) {
                return (route.handler)(request, &params);
            }
            allowed.push(&route.method);
            if route.method == Method::GET {
                allowed.push(&Method::HEAD);
            }
        }
        if allowed.is_empty() {
            return with_status(StatusCode::NOT_FOUND, Body::empty());
        }
        let mut names: Vec<&str> = allowed.into_iter().map(Method::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let mut response = with_status(StatusCode::METHOD_NOT_ALLOWED, Body::empty());
        // Method names are tokens, which are always valid in a header.
        if let Ok(value) = HeaderValue::try_from(names.join(", ")) {
            response.headers_mut().insert(ALLOW, value);
        }
        response
    }
}

/// What the `:name` segments of a pattern matched, percent-decoded. `params["name"]` panics if the pattern has no `:name`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// What `:name` matched.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl std::ops::Index<&str> for Params {
    type Output = str;

    fn index(&self, name: &str) -> &str {
        // Documented: a pattern and its handler stand side by side, so this is a typing mistake in the guest.
        self.find(name).unwrap_or_else(|| panic!("the pattern has no `:{name}`"))
    }
}

fn matches(pattern: &str, path: &str) -> Option<Params> {
    let mut params = Params::default();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = decode(segments.next()?)?;
        match expected.strip_prefix(':') {
            Some(name) if !segment.is_empty() => params.0.push((name.into(), segment)),
            None if segment == expected => {}
            _ => return None,
        }
    }
    segments.next().is_none().then_some(params)
}

/// Undoes percent-encoding (RFC 3986 2.1). `None`: it is broken, or not UTF-8.
fn decode(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestBuilder;

    fn answer(method: &str, path: &str) -> (u16, String, Option<String>) {
        let request = RequestBuilder::new().method(method).uri(path).body(Body::empty()).expect("a request");
        let response = Router::new()
            .get("/", |_, _| "root")
            .get("/users/me", |_, _| "me")
            .get("/users/:name", |_, params| params["name"].to_owned())
            .delete("/users/:name", |_, _| StatusCode::NO_CONTENT)
            .get("/users/:name/books/:book", |_, params| format!("{}+{}", &params["name"], &params["book"]))
            .handle(request);
        let allow = response.headers().get(ALLOW).map(|value| value.to_str().expect("text").to_owned());
        (response.status().as_u16(), response.into_body().text().expect("text"), allow)
    }

    #[test]
    fn the_first_route_that_matches_answers() {
        assert_eq!(answer("GET", "/?q=1"), (200, "root".into(), None));
        assert_eq!(answer("GET", "/users/me").1, "me");
        assert_eq!(answer("GET", "/users/ada").1, "ada");
        assert_eq!(answer("GET", "/users/a%2Fb/books/c%20d").1, "a/b+c d");
        assert_eq!(answer("DELETE", "/users/ada").0, 204);
    }

    #[test]
    fn an_unknown_path_is_404() {
        for path in ["/users", "/users/", "/users/ada/", "/users/ada/books", "/users/%ff", "/users/%2", "//"] {
            assert_eq!(answer("GET", path).0, 404, "{path}");
        }
    }

    #[test]
    fn a_known_path_with_another_method_is_405_and_says_what_is_allowed() {
        assert_eq!(answer("POST", "/users/ada"), (405, String::new(), Some("DELETE, GET, HEAD".into())));
        assert_eq!(answer("POST", "/").2, Some("GET, HEAD".into()));
    }

    #[test]
    fn head_falls_to_get() {
        assert_eq!(answer("HEAD", "/users/ada").0, 200);
    }
}
