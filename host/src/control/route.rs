//! What can be asked for over the control socket: methods, paths and queries, and how a request that asks for something else is
//! refused. Pure.

use astra_server::{Body, Response};
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE},
};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    Index,
    Status,
    Requests,
    Kill,
    Swap,
    Rollback,
    Promote,
    Abort,
    Reload,
    Stop,
    Upgrade,
    TakeOver,
    Events,
    Metrics,
    Healthz,
    Readyz,
}

impl Task {
    /// Whether anybody may ask: it tells no more than a connection that is accepted.
    pub(super) fn is_for_all(self) -> bool {
        matches!(self, Self::Healthz | Self::Readyz)
    }
}

/// One thing that can be asked for.
#[derive(Debug, Serialize)]
pub(super) struct Route {
    method: &'static str,
    /// A segment in braces is any.
    path: &'static str,
    query: &'static [&'static str],
    does: &'static str,
    #[serde(skip)]
    task: Task,
}

const fn route(
    task: Task,
    method: &'static str,
    path: &'static str,
    query: &'static [&'static str],
    does: &'static str,
) -> Route {
    Route { method, path, query, does, task }
}

/// All of them; `GET /` answers with this list.
pub(super) const ROUTES: [Route; 16] = [
    route(Task::Index, "GET", "/", &[], "lists what can be asked for"),
    route(Task::Status, "GET", "/v1/status", &[], "the host, its handlers and their revisions"),
    route(Task::Requests, "GET", "/v1/requests", &[], "every request that runs or waits"),
    route(Task::Kill, "DELETE", "/v1/requests/{id}", &[], "cuts a request"),
    route(
        Task::Swap,
        "POST",
        "/v1/handlers/{name}/swap",
        &["canary", "no_new_imports", "until_restart", "no_wait", "source"],
        "publishes the module in the body",
    ),
    route(Task::Rollback, "POST", "/v1/handlers/{name}/rollback", &["revision", "no_wait"], "goes back"),
    route(Task::Promote, "POST", "/v1/handlers/{name}/promote", &["no_wait"], "gives the canary all requests"),
    route(Task::Abort, "POST", "/v1/handlers/{name}/abort", &["no_wait"], "takes the canary back"),
    route(Task::Reload, "POST", "/v1/reload", &[], "reads the configuration again"),
    route(Task::Stop, "POST", "/v1/stop", &[], "stops the host"),
    route(
        Task::Upgrade,
        "POST",
        "/v1/upgrade",
        &["exe", "within", "force"],
        "starts a new host that takes this one's place",
    ),
    route(Task::TakeOver, "POST", "/v1/take-over", &[], "for that new host: asks for all sockets"),
    route(Task::Events, "GET", "/v1/events", &[], "what happens, as server-sent events after Last-Event-ID"),
    route(Task::Metrics, "GET", "/metrics", &[], "the numbers of the status, as Prometheus reads them"),
    route(Task::Healthz, "GET", "/healthz", &[], "200: the process lives; asks for no token"),
    route(Task::Readyz, "GET", "/readyz", &[], "200 while it serves, 503 once it drains; asks for no token"),
];

/// What one request asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) task: Task,
    /// The segment in braces; empty where there is none.
    pub(super) name: String,
    pub(super) query: Query,
}

impl Asked {
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Self, Refused> {
        let unknown =
            || Refused::new(StatusCode::NOT_FOUND, format!("there is no `{}`; GET / lists what there is", uri.path()));
        let (route, name) =
            ROUTES.iter().find_map(|route| Some((route, route.matched(uri.path())?))).ok_or_else(unknown)?;
        if method.as_str() != route.method {
            let wrong = format!("`{}` takes {}, not {method}", route.path, route.method);
            let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, wrong);
            return Err(refused.with(ALLOW, HeaderValue::from_static(route.method)));
        }
        let name = percent_decode_str(name).decode_utf8();
        let name = name.map_err(|_| Refused::bad("the path must be UTF-8, percent-encoded"))?.into_owned();
        let query = Query::parse(uri.query().unwrap_or_default(), route.query)?;
        Ok(Self { task: route.task, name, query })
    }
}

impl Route {
    /// What stands in the place of the braces, if `path` is this route's.
    fn matched<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Some((before, after)) = self.path.split_once('{') else {
            return (path == self.path).then_some("");
        };
        let after = after.split_once('}').map_or("", |(_, after)| after);
        let name = path.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('/')).then_some(name)
    }
}

/// The keys of a query and their values.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str, known: &[&str]) -> Result<Self, Refused> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        for (at, (key, _)) in pairs.iter().enumerate() {
            if !known.contains(&key.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { format!("`{}`", known.join("`, `")) };
                return Err(Refused::bad(format!("unknown key `{key}` in the query; there is {known}")));
            }
            if pairs[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err(Refused::bad(format!("`{key}` stands in the query twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|(found, value)| (found == key).then_some(value.as_str()))
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool, Refused> {
        match self.text(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Refused::bad(format!("`{key}` must be true or false, found `{other}`"))),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u32>, Refused> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refused::bad(format!("`{key}` must be a number such as 7, found `{text}`")))
        };
        self.text(key).map(parse).transpose()
    }
}

/// Why something was not done, for the one who asked.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    error: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), header: None }
    }

    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = json(self.status, &json!({ "error": self.error }));
        response.headers_mut().extend(self.header);
        response
    }
}

/// An answer of one line of JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Fails only for maps whose keys are no strings, of which our types have none.
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::new(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &Method, uri: &str) -> Result<Asked, Refused> {
        Asked::of(method, &uri.parse().expect("a URI"))
    }

    #[test]
    fn every_route_is_found_by_its_path() {
        for route in &ROUTES {
            let path = route.path.replace("{name}", "my%20app%2Fv1").replace("{id}", "my%20app%2Fv1");
            let asked = ask(&route.method.parse().expect("a method"), &path).expect("is known");
            assert_eq!(asked.task, route.task);
            assert_eq!(asked.name, if route.path.contains('{') { "my app/v1" } else { "" });
        }
    }

    #[test]
    fn the_wrong_method_is_told_the_right_one() {
        let refused = ask(&Method::GET, "/v1/handlers/hello/swap").expect_err("is POST");
        assert_eq!(
            (refused.status, refused.into_response().headers()[ALLOW].as_bytes()),
            (StatusCode::METHOD_NOT_ALLOWED, &b"POST"[..])
        );
    }

    #[test]
    fn other_paths_are_not_found() {
        for path in
            ["/v1", "/v1/status/", "/v1/requests/", "/v1/handlers//swap", "/v1/handlers/a/b/swap", "/v1/handlers/a"]
        {
            assert_eq!(ask(&Method::POST, path).expect_err("is unknown").status, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn a_bad_query_names_its_key() {
        for (query, key) in
            [("canray=1", "canray"), ("no_wait=yes", "no_wait"), ("no_wait=true&no_wait=true", "no_wait")]
        {
            let asked = ask(&Method::POST, &format!("/v1/handlers/hello/swap?{query}"));
            let refused = asked.and_then(|asked| asked.query.flag("no_wait")).expect_err("is bad");
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
            assert!(refused.error.contains(&format!("`{key}`")), "{}", refused.error);
        }
        let asked = ask(&Method::POST, "/v1/handlers/hello/rollback?revision=r").expect("is known");
        assert!(asked.query.number("revision").expect_err("is no number").error.contains("`revision`"));
        assert!(ask(&Method::GET, "/v1/status?a=1").expect_err("takes none").error.contains("there is none"));
    }

    #[test]
    fn values_are_decoded() {
        let asked = ask(&Method::POST, "/v1/handlers/hello/swap?canary=10%25&source=a+b%2B.wasm&no_wait=true")
            .expect("is good");
        assert_eq!((asked.query.text("canary"), asked.query.text("source")), (Some("10%"), Some("a b+.wasm")));
        assert_eq!(
            (asked.query.flag("no_wait").ok(), asked.query.flag("until_restart").ok()),
            (Some(true), Some(false))
        );
    }
}
