//! Both ends of a question, for `tests/fuzz`: how a client writes it and how the host reads it.

use http::{Method, StatusCode, Uri};

use super::{client::Question, route};

/// What a request asks for: what is to be done, with what, and the values of some keys of its query.
pub type Asked = (String, String, Vec<Option<String>>);

/// What the host makes of a request.
///
/// # Errors
/// The status with which it is refused.
pub fn asked(method: &Method, uri: &Uri, keys: &[&str]) -> Result<Asked, StatusCode> {
    let asked = route::Asked::of(method, uri).map_err(|refused| refused.into_response().status())?;
    let values = keys.iter().map(|key| asked.query.text(key).map(str::to_owned)).collect();
    Ok((format!("{:?}", asked.task), asked.name, values))
}

/// The target that a client asks for.
#[must_use]
pub fn target(path: &[&str], query: &[(&str, Option<&str>)]) -> String {
    Question::new(Method::GET, path).query(query).target
}
