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
