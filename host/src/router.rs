//! Which handler a request is for: host and path patterns. Pure; made anew whenever the handlers change, read by every worker.
//!
//! Specificity decides, never order. Hosts: the exact one, then the longest `*.` one, then any; if a host has no path that
//! matches, the next one is asked. Paths, from left to right: a literal segment, then `:name`, then `/*`. `/hello/*` is also
//! `/hello` and `/hello/`, unless a route names these itself; `/*` is everything, the `*` of `OPTIONS *` too.
//!
//! Paths are compared as they came, byte for byte: percent-encoding is not decoded, `.` and `//` mean themselves.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    net::Ipv6Addr,
};

/// Most `:name` in a route. The matcher has a bound too, and panics there.
const MAX_PARAMS: usize = 16;

/// The longest name that a host can have (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// What the matcher calls the rest of a `/*`; no `:name` can be called so.
const REST: &str = ".";

/// One pattern of a handler: a path, and a host if it is for one only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// `api.example.com` or `*.example.com`, in lower case; `None` is any.
    pub host: Option<String>,
    /// `/exact`, `/users/:id`, `/files/*`.
    pub path: String,
}

/// Why routes cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// A path is not one, or its parameters are not.
    #[error("route `{path}` must be {allowed}")]
    Path {
        /// The path.
        path: String,
        /// What would have been accepted.
        allowed: &'static str,
    },
    /// A host is not one.
    #[error("host `{host}` must be {allowed}")]
    Host {
        /// The host.
        host: String,
        /// What would have been accepted.
        allowed: &'static str,
    },
    /// Two handlers have one name.
    #[error("two handlers are called `{name}`: rename one")]
    Name {
        /// The name.
        name: String,
    },
    /// Two routes match the same requests, and neither is more specific.
    #[error(
        "route `{first_route}` of handler `{first}` and route `{second_route}` of handler `{second}` match the same requests: change one"
    )]
    Overlap {
        /// A handler.
        first: String,
        /// Its route.
        first_route: String,
        /// The other handler, or the same one.
        second: String,
        /// Its route.
        second_route: String,
    },
}

impl RouteError {
    /// What would have been accepted.
    pub(crate) fn allowed(&self) -> &'static str {
        match self {
            Self::Path { allowed, .. } | Self::Host { allowed, .. } => allowed,
            Self::Name { .. } | Self::Overlap { .. } => "different from all others",
        }
    }
}

impl Route {
    /// Every request.
    #[must_use]
    pub fn everything() -> Self {
        Self { host: None, path: "/*".to_owned() }
    }

    /// Reads a route.
    ///
    /// The path begins with `/`; its segments are literal, or `:name` for any one that is not empty, or `*` as the last for
    /// whatever follows. The host is a name, `*.` and a name for all names below it, or an IP address.
    ///
    /// # Errors
    /// Host or path are something else.
    pub fn parse(host: Option<&str>, path: &str) -> Result<Self, RouteError> {
        let wrong = |allowed| RouteError::Path { path: path.to_owned(), allowed };
        check_path(path).map_err(wrong)?;
        Ok(Self { host: host.map(parse_host).transpose()?, path: path.to_owned() })
    }

    /// The path up to its `/*`, if it ends in one.
    fn prefix(&self) -> Option<&str> {
        self.path.strip_suffix("/*")
    }

    /// How specific each segment is, the smaller the more. Of two routes that match a path, the one with the smaller list is meant:
    /// they are equal only where both have the same literals.
    fn rank(&self) -> Vec<u8> {
        let rank = |segment: &str| match segment {
            "*" => 2,
            _ if segment.starts_with(':') => 1,
            _ => 0,
        };
        segments(&self.path).map(rank).collect()
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host.as_deref().unwrap_or_default(), self.path)
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if !path.starts_with('/') {
        return Err("a path that begins with `/`");
    }
    if path.contains(['?', '#']) {
        return Err("a path without `?` and `#`");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a path of printable ASCII, with anything else percent-encoded as clients send it (`%20`)");
    }
    if path.strip_suffix("/*").unwrap_or(path).contains('*') {
        return Err("a path with `*` only as its last segment, such as `/files/*`");
    }
    let mut params: Vec<&str> = segments(path).filter_map(|segment| segment.strip_prefix(':')).collect();
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if params.iter().any(|name| name.is_empty() || !name.bytes().all(in_name)) {
        return Err("a path with a name of letters, digits, `_` and `-` after each `:`, such as `/users/:id`");
    }
    if params.len() > MAX_PARAMS {
        return Err("a path with 16 parameters at the most");
    }
    params.sort_unstable();
    if params.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a path whose parameters have different names");
    }
    Ok(())
}

fn parse_host(text: &str) -> Result<String, RouteError> {
    let host = text.to_ascii_lowercase();
    let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    if let Ok(address) = ipv6.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.len() <= MAX_HOST && host.strip_prefix("*.").unwrap_or(&host).split('.').all(is_label) {
        return Ok(host);
    }
    let allowed = "a name without a port, such as `api.example.com`, `*.example.com` or `[::1]`";
    Err(RouteError::Host { host: text.to_owned(), allowed })
}

/// All routes of all handlers.
#[derive(Debug, Default)]
pub struct Router {
    entries: Vec<Entry>,
    hosts: HashMap<String, Paths>,
    /// By what follows the `*`: `.example.com`.
    wildcard_hosts: HashMap<String, Paths>,
    any_host: Paths,
}

#[derive(Debug)]
struct Entry {
    handler: usize,
    route: Route,
    rank: Vec<u8>,
}

/// The routes of one host, as indices of [`Router::entries`]. A matcher cannot have `:name` and `*` in the same place, so routes that end
/// in `/*` are apart from the others (`None`), and from those whose `*` is at another depth.
#[derive(Debug, Default)]
struct Paths(BTreeMap<Option<usize>, matchit::Router<usize>>);

/// The handler that a request is for.
#[derive(Debug)]
pub struct Match<'a> {
    /// Its position among those that the router was made of.
    pub handler: usize,
    /// The route that matched.
    pub route: &'a Route,
    captured: matchit::Params<'a, 'a>,
}

impl Router {
    /// Makes a router of handlers, each a name (for errors) and its routes.
    ///
    /// # Errors
    /// A route is none, or two cannot be told apart: same host, and the same path but for the names of parameters.
    pub fn new<'a>(handlers: impl IntoIterator<Item = (&'a str, &'a [Route])>) -> Result<Self, RouteError> {
        let mut router = Self::default();
        let mut shapes: HashMap<(Option<String>, String), (&str, String)> = HashMap::new();
        for (handler, (name, routes)) in handlers.into_iter().enumerate() {
            for route in routes {
                let route = Route::parse(route.host.as_deref(), &route.path)?;
                let shape = (route.host.clone(), pattern(&route.path, |_| "{}".to_owned()));
                if let Some((first, first_route)) = shapes.insert(shape, (name, route.to_string())) {
                    let (first, second) = (first.to_owned(), name.to_owned());
                    return Err(RouteError::Overlap { first, first_route, second, second_route: route.to_string() });
                }
                router.add(handler, route)?;
            }
        }
        router.add_roots_of_wildcards();
        Ok(router)
    }

    fn add(&mut self, handler: usize, route: Route) -> Result<(), RouteError> {
        let depth = route.prefix().map(|prefix| segments(prefix).count());
        let path = pattern(&route.path, |name| format!("{{{name}}}"));
        let index = self.entries.len();
        let refused = self.paths(route.host.as_deref()).0.entry(depth).or_default().insert(path, index).is_err();
        if refused {
            return Err(RouteError::Path {
                path: route.path,
                allowed: "a path that can be told from those of the other routes",
            });
        }
        self.entries.push(Entry { handler, rank: route.rank(), route });
        Ok(())
    }

    /// `/hello/*` is `/hello` and `/hello/` too, where nobody has claimed these; the more specific first, since `/hello//*` is `/hello/` as well.
    fn add_roots_of_wildcards(&mut self) {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|index| self.entries[*index].rank.clone());
        for index in order {
            let route = self.entries[index].route.clone();
            let Some(prefix) = route.prefix() else { continue };
            let prefix = pattern(prefix, |name| format!("{{{name}}}"));
            let bare = if prefix.is_empty() { "*" } else { prefix.as_str() };
            let paths = self.paths(route.host.as_deref()).0.entry(None).or_default();
            for root in [bare, &format!("{prefix}/")] {
                // Refused where a route claims it.
                let _ = paths.insert(root, index);
            }
        }
    }

    fn paths(&mut self, host: Option<&str>) -> &mut Paths {
        match host.map(|host| (host, host.strip_prefix('*'))) {
            None => &mut self.any_host,
            Some((_, Some(suffix))) => self.wildcard_hosts.entry(suffix.to_owned()).or_default(),
            Some((host, None)) => self.hosts.entry(host.to_owned()).or_default(),
        }
    }

    /// Whether every request is for its one route.
    pub(crate) fn is_for_all(&self) -> bool {
        matches!(&self.entries[..], [only] if only.route == Route::everything())
    }

    /// The handler for a request to this host (with or without a port, in any case) and path (without the query).
    ///
    /// Allocates only for hosts in capitals and routes with more than three parameters.
    #[must_use]
    pub fn find<'a>(&'a self, host: Option<&str>, path: &'a str) -> Option<Match<'a>> {
        let host = bare(host.unwrap_or_default());
        let exact = self.hosts.get(&*host);
        let dots = host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        let wildcards = dots.filter_map(|at| self.wildcard_hosts.get(&host[at..]));
        let mut candidates = exact.into_iter().chain(wildcards).chain([&self.any_host]);
        let (index, captured) = candidates.find_map(|paths| {
            let matches = paths.0.values().filter_map(|matcher| matcher.at(path).ok());
            let best = matches.min_by(|a, b| self.entries[*a.value].rank.cmp(&self.entries[*b.value].rank))?;
            Some((*best.value, best.params))
        })?;
        let Entry { handler, route, .. } = &self.entries[index];
        Some(Match { handler: *handler, route, captured })
    }
}

impl<'a> Match<'a> {
    /// Name and value of each `:name`, in the order of the path.
    pub fn params(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.captured.iter().filter(|(name, _)| *name != REST)
    }

    /// What the `*` of a `/*` stands for, without the slash before it: `a/b` for `/hello/a/b` and `/hello/*`. Empty for `/hello` and `/hello/`.
    #[must_use]
    pub fn rest(&self) -> Option<&'a str> {
        self.route.prefix().map(|_| self.captured.get(REST).unwrap_or_default())
    }

    /// How many bytes of `path`, which was matched, are before what `*` stands for and its slash: what CGI calls the script's name.
    #[must_use]
    pub fn script(&self, path: &str) -> usize {
        let before = path.len() - self.rest().map_or(0, str::len);
        if self.rest().is_some() && path[..before].ends_with('/') { before - 1 } else { before }
    }
}

/// A path in the matcher's way of writing; `param` writes `:name`.
fn pattern(path: &str, param: impl Fn(&str) -> String) -> String {
    let segment = |segment: &str| match (segment, segment.strip_prefix(':')) {
        ("*", _) => format!("{{*{REST}}}"),
        (_, Some(name)) => param(name),
        (literal, None) => literal.replace('{', "{{").replace('}', "}}"),
    };
    path.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// A host as routes have it: in lower case, without port and the dot of the root. Nothing if it is too long to be one, lest a client
/// makes us look up each of ten thousand dots.
fn bare(host: &str) -> Cow<'_, str> {
    let name = match host.find(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    match name {
        _ if name.len() > MAX_HOST => Cow::Borrowed(""),
        _ if name.bytes().any(|byte| byte.is_ascii_uppercase()) => Cow::Owned(name.to_ascii_lowercase()),
        _ => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route as its display shows it.
    fn route(text: &str) -> Route {
        let path_at = text.find('/').expect("a path");
        let (host, path) = text.split_at(path_at);
        Route::parse((!host.is_empty()).then_some(host), path).expect("a route")
    }

    /// One handler for each route, called like it.
    fn router(routes: &[&str]) -> Result<Router, RouteError> {
        let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
        let names: Vec<String> = routes.iter().map(Route::to_string).collect();
        Router::new(names.iter().map(String::as_str).zip(routes.iter().map(std::slice::from_ref)))
    }

    /// The route that wins, and what it captures: `/users/:id id=7`.
    fn found(router: &Router, host: Option<&str>, path: &str) -> String {
        let Some(found) = router.find(host, path) else { return "nothing".to_owned() };
        let params = found.params().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
        let rest = found.rest().map(|rest| format!(" *={rest}")).unwrap_or_default();
        format!("{}{params}{rest}", found.route)
    }

    fn assert_found(routes: &[&str], expected: &[(&str, &str)]) {
        // Order must not matter.
        let reversed: Vec<&str> = routes.iter().rev().copied().collect();
        for routes in [routes, &reversed] {
            let router = router(routes).expect("they can be told apart");
            for (path, expected) in expected {
                assert_eq!(found(&router, None, path), *expected, "{path} among {routes:?}");
            }
        }
    }

    #[test]
    fn of_two_wildcards_with_the_same_root_the_more_specific_has_it() {
        assert_found(
            &["/*", "//*", "/hello/*", "/hello//*"],
            &[
                ("/", "//* *="),
                ("//", "//* *="),
                ("/hello", "/hello/* *="),
                ("/hello/", "/hello//* *="),
                ("/hello/a", "/hello/* *=a"),
                ("/other", "/* *=other"),
            ],
        );
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (path, allowed) in [
            ("", "begins with `/`"),
            ("hello", "begins with `/`"),
            ("*", "begins with `/`"),
            (":id", "begins with `/`"),
            ("/a?b", "without `?`"),
            ("/a#b", "without `?`"),
            ("/a b", "percent-encoded"),
            ("/ä", "percent-encoded"),
            ("/a\0", "percent-encoded"),
            ("/a\n", "percent-encoded"),
            ("/*/a", "last segment"),
            ("/a*", "last segment"),
            ("/**", "last segment"),
            ("/*/*", "last segment"),
            ("/:a*", "last segment"),
            ("/:", "name"),
            ("/:/a", "name"),
            ("/:a.b", "name"),
            ("/:a:b", "name"),
            ("/:{a}", "name"),
            ("/:a/:a", "different names"),
            ("/:a/:b/:a/*", "different names"),
        ] {
            let error = Route::parse(None, path).expect_err(path).to_string();
            assert!(error.starts_with(&format!("route `{path}` must be ")) && error.contains(allowed), "{error}");
        }
        let many: String = (0..40).map(|n| format!("/:p{n}")).collect();
        assert!(Route::parse(None, &many).is_err_and(|error| error.to_string().contains("16 parameters")));
    }

    #[test]
    fn hosts_are_lower_case_names_or_addresses() {
        for (host, expected) in [
            ("API.Example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("localhost", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("0:0::1", "[::1]"),
            ("a_b-c.d", "a_b-c.d"),
        ] {
            assert_eq!(Route::parse(Some(host), "/").map(|route| route.to_string()), Ok(format!("{expected}/")));
        }
        let long = format!("{}.com", "a.".repeat(130));
        for wrong in
            ["", "*", "*.", "a.*.b", "*a.b", "a:80", "[::1]:80", "a..b", "a.", ".a", "a b", "ä.de", "a/b", &long]
        {
            assert!(matches!(Route::parse(Some(wrong), "/"), Err(RouteError::Host { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_wildcard_has_a_root_and_everything_below() {
        assert_found(
            &["/hello/*", "/:a/:b/*"],
            &[
                ("/hello", "/hello/* *="),
                ("/hello/", "/hello/* *="),
                ("/hello/a/b", "/hello/* *=a/b"),
                ("/hello//", "/hello/* *=/"),
                ("/hellos", "nothing"),
                ("/x/y", "/:a/:b/* a=x b=y *="),
                ("/x/y/", "/:a/:b/* a=x b=y *="),
                ("/x/y/z", "/:a/:b/* a=x b=y *=z"),
                ("/", "nothing"),
                ("*", "nothing"),
                ("", "nothing"),
            ],
        );
        assert_found(
            &["/*"],
            &[("/", "/* *="), ("*", "/* *="), ("/a", "/* *=a"), ("//", "/* *=/"), ("/a/", "/* *=a/")],
        );
        assert_found(
            &["/hello/*", "/hello", "/hello/", "/*", "/"],
            &[("/hello", "/hello"), ("/hello/", "/hello/"), ("/hello/a", "/hello/* *=a"), ("/", "/"), ("*", "/* *=")],
        );
        assert_found(&["/:x/*", "/:y", "/:z/"], &[("/a", "/:y y=a"), ("/a/", "/:z/ z=a"), ("/a/b", "/:x/* x=a *=b")]);
    }

    #[test]
    fn the_more_specific_path_wins_from_left_to_right() {
        assert_found(
            &["/users/:id", "/users/me", "/users/*", "/*", "/:any", "/:any/me", "/:any/:other/deep"],
            &[
                ("/users/me", "/users/me"),
                ("/users/7", "/users/:id id=7"),
                ("/users/7/x", "/users/* *=7/x"),
                ("/users/me/deep", "/users/* *=me/deep"),
                ("/users", "/users/* *="),
                ("/other", "/:any any=other"),
                ("/other/me", "/:any/me any=other"),
                ("/other/you", "/* *=other/you"),
                ("/other/you/deep", "/:any/:other/deep any=other other=you"),
                ("/", "/* *="),
            ],
        );
        assert_found(
            &["/a/*", "/:x/b", "/:x/b/c/*"],
            &[("/a/b", "/a/* *=b"), ("/a/b/c", "/a/* *=b/c"), ("/z/b", "/:x/b x=z"), ("/z/b/c", "/:x/b/c/* x=z *=")],
        );
    }

    #[test]
    fn braces_percent_signs_and_slashes_are_literal() {
        assert_found(
            &["/{a}/:b", "/{{x", "/}", "/%7Bc%7D", "/a//b", "/a/../b", "/a:b"],
            &[
                ("/{a}/1", "/{a}/:b b=1"),
                ("/a/1", "nothing"),
                ("/{{x", "/{{x"),
                ("/}", "/}"),
                ("/%7Bc%7D", "/%7Bc%7D"),
                ("/%7bc%7d", "nothing"),
                ("/a//b", "/a//b"),
                ("/a/b", "nothing"),
                ("/a/../b", "/a/../b"),
                ("/a:b", "/a:b"),
            ],
        );
    }

    #[test]
    fn a_host_goes_before_any_and_falls_back() {
        let router = router(&[
            "api.example.com/v1",
            "*.example.com/v1",
            "*.example.com/v2",
            "*.b.example.com/v1",
            "/v1",
            "/v3/*",
            "[::1]/v1",
            "*.com/com",
        ])
        .expect("they can be told apart");
        for (host, path, expected) in [
            ("api.example.com", "/v1", "api.example.com/v1"),
            ("API.EXAMPLE.COM", "/v1", "api.example.com/v1"),
            ("api.example.com:8080", "/v1", "api.example.com/v1"),
            ("api.example.com.", "/v1", "api.example.com/v1"),
            ("api.example.com.:80", "/v1", "api.example.com/v1"),
            ("api.example.com..", "/v1", "/v1"),
            ("api.example.com", "/v2", "*.example.com/v2"),
            ("api.example.com", "/v3/x", "/v3/* *=x"),
            ("api.example.com", "/com", "*.com/com"),
            ("api.example.com", "/v4", "nothing"),
            ("a.b.example.com", "/v1", "*.b.example.com/v1"),
            ("a.b.example.com", "/v2", "*.example.com/v2"),
            ("b.example.com", "/v1", "*.example.com/v1"),
            ("example.com", "/v1", "/v1"),
            (".example.com", "/v2", "nothing"),
            ("badexample.com", "/v2", "nothing"),
            ("[::1]:80", "/v1", "[::1]/v1"),
            ("[::1]", "/v1", "[::1]/v1"),
            ("", "/v1", "/v1"),
            ("]", "/v1", "/v1"),
        ] {
            assert_eq!(found(&router, Some(host), path), expected, "{host}{path}");
        }
        assert_eq!(found(&router, None, "/v1"), "/v1");
        assert_eq!(found(&router, Some(&"a.".repeat(30_000)), "/v1"), "/v1");
    }

    #[test]
    fn what_cannot_be_told_apart_is_named() {
        for (first, second) in [
            ("/:a", "/:b"),
            ("/x", "/x"),
            ("/*", "/*"),
            ("/:a/x/*", "/:b/x/*"),
            ("a.de/:a", "a.de/:b"),
            ("*.a.de/", "*.a.de/"),
        ] {
            let error = router(&[first, "/else", second]).expect_err("the same").to_string();
            let both = format!("route `{first}` of handler `{first}` and route `{second}` of handler `{second}`");
            assert!(error.starts_with(&both), "{error}");
        }
        for different in [["/x", "/x/"], ["/x", "/X"], ["a.de/x", "/x"], ["/:a", "/:a/"], ["/:a", "/*"], ["/a/*", "/a"]]
        {
            assert!(router(&different).is_ok(), "{different:?}");
        }
    }

    #[test]
    fn routes_that_nobody_has_checked_are_checked() {
        let bad = [Route { host: None, path: "/:p".repeat(40) }];
        assert!(Router::new([("a", &bad[..])]).is_err());
    }

    /// The rules once more, in the plainest way: every route is tried.
    fn plainly<'a>(routes: &[&'a str], path: &str) -> Option<&'a str> {
        let matches = |route: &str| {
            let (pattern, path): (Vec<_>, Vec<_>) = (segments(route).collect(), segments(path).collect());
            let below = pattern.last() == Some(&"*");
            let fixed = if below { &pattern[..pattern.len() - 1] } else { &pattern[..] };
            let fits =
                |(segment, part): (&&str, &&str)| segment == part || segment.starts_with(':') && !part.is_empty();
            (if below { path.len() >= fixed.len() } else { path.len() == fixed.len() })
                && fixed.iter().zip(&path).all(fits)
        };
        // A route that names a root goes before the wildcard whose root it is.
        let rank =
            |text: &&str| segments(text).map(|s| if s == "*" { 2 } else { u8::from(s.starts_with(':')) }).collect();
        routes.iter().copied().filter(|route| matches(route)).min_by_key(|route| -> Vec<u8> { rank(route) })
    }

    #[test]
    fn all_small_sets_of_routes_agree_with_the_rules() {
        let parts = ["a", ":p", "*", "b"];
        let mut all: Vec<String> = Vec::new();
        for one in parts {
            all.push(format!("/{one}"));
            for two in parts.iter().filter(|_| one != "*") {
                all.push(format!("/{one}/{two}"));
                all.extend(
                    ["a", "*"]
                        .iter()
                        .filter(|_| *two != "*")
                        .map(|three| format!("/{one}/{}/{three}", if *two == ":p" { ":q" } else { two })),
                );
            }
        }
        let all: Vec<String> = all.into_iter().map(|route| route.replace("/:p/:p", "/:p/:q")).collect();
        let paths =
            ["/", "/a", "/b", "/a/", "/a/b", "/b/a", "/c/a", "/c/c", "/a/b/a", "/b/b/b", "/c/b/a", "/a/b/c/d", "//"];
        for (i, one) in all.iter().enumerate() {
            for (j, two) in all.iter().enumerate().skip(i + 1) {
                for three in &all[j + 1..] {
                    let routes = [one.as_str(), two, three];
                    let router = router(&routes).expect("they differ");
                    for path in paths {
                        let found = router.find(None, path).map(|found| found.route.path.as_str());
                        assert_eq!(found, plainly(&routes, path), "{path} among {routes:?}");
                    }
                }
            }
        }
    }
}
