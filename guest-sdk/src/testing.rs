//! Who answers natively what a guest asks the host for: in-memory doubles for unit tests. Not compiled for Wasm.
//!
//! They count for the thread that installs them, until the guard is dropped: `cargo test` runs each test on a thread of its own, so tests
//! do not meet. A double that is installed while there is one takes its place; the first is back when the second's guard is dropped.
//!
//! ```
//! use guest_sdk::{config, fetch, testing, Body, FetchError, Request, RequestBuilder, Response};
//!
//! fn greeting(_: Request) -> Result<Response, FetchError> {
//!     let url = config::var("upstream").unwrap_or_default();
//!     fetch(RequestBuilder::new().uri(url).body(Body::empty()).map_err(|_| FetchError::Invalid("URI"))?)
//! }
//!
//! let _config = testing::set_config([("upstream", "http://greetings.internal/")]);
//! let _fetch = testing::on_fetch(|request| {
//!     assert_eq!(request.uri(), "http://greetings.internal/");
//!     Ok(Response::new(Body::new("good morning")))
//! });
//! let response = greeting(Request::default()).unwrap();
//! assert_eq!(response.into_body().text().unwrap(), "good morning");
//! ```

use std::{cell::RefCell, fmt, marker::PhantomData, mem, rc::Rc, thread::LocalKey};

use crate::{FetchError, Request, Response};

type Answer = Rc<dyn Fn(Request) -> Result<Response, FetchError>>;
type Values = Vec<(String, String)>;

thread_local! {
    static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
    static CONFIG: RefCell<Values> = const { RefCell::new(Vec::new()) };
}

/// Answers every [`fetch()`](crate::fetch()) of this thread with `answer`, until the guard is dropped.
///
/// `answer` gets the request as it was sent: its body can be read, its [`Timeouts`](crate::fetch::Timeouts) are in its extensions.
pub fn on_fetch(answer: impl Fn(Request) -> Result<Response, FetchError> + 'static) -> Double {
    install(&ANSWER, Some(Rc::new(answer)))
}

/// What [`config`](crate::config) has for this thread, nothing else, until the guard is dropped.
pub fn set_config<N: Into<String>, V: Into<String>>(values: impl IntoIterator<Item = (N, V)>) -> Double {
    install(&CONFIG, values.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn install<T: 'static>(place: &'static LocalKey<RefCell<T>>, double: T) -> Double {
    let before = place.replace(double);
    Double { put_back: Some(Box::new(move || drop(place.replace(before)))), of_one_thread: PhantomData }
}

/// Keeps a double installed: bind it to a name (`let _fetch = …`).
#[must_use = "the double is gone when this is dropped: bind it to a name, like `_fetch`"]
pub struct Double {
    put_back: Option<Box<dyn FnOnce()>>,
    of_one_thread: PhantomData<*const ()>,
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(put_back) = mem::take(&mut self.put_back) {
            put_back();
        }
    }
}

impl fmt::Debug for Double {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Double").finish_non_exhaustive()
    }
}

/// A request whose answer is there already.
#[derive(Debug)]
pub(crate) struct Pending(Result<Response, FetchError>);

impl Pending {
    pub(crate) fn wait(self) -> Result<Response, FetchError> {
        self.0
    }
}

pub(crate) fn start(request: Request) -> Result<Pending, FetchError> {
    // Not borrowed while it answers: it may fetch too, or install another.
    let answer = ANSWER.with_borrow(Clone::clone).ok_or(FetchError::NotInGuest)?;
    Ok(Pending(answer(request)))
}

pub(crate) fn config_var(name: &str) -> Option<String> {
    CONFIG.with_borrow(|values| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()))
}

pub(crate) fn config_all() -> Values {
    CONFIG.with_borrow(Clone::clone)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::{
        Body, RequestBuilder, StatusCode, config,
        fetch::{self, Timeouts, fetch},
    };

    fn get(uri: &str) -> Request {
        RequestBuilder::new().uri(uri).body(Body::empty()).expect("a request")
    }

    fn answers(status: StatusCode) -> impl Fn(Request) -> Result<Response, FetchError> {
        move |_| Ok(crate::response::with_status(status, Body::empty()))
    }

    #[test]
    fn without_a_double_there_is_no_host_and_no_configuration() {
        assert!(matches!(fetch(get("http://example.com/")), Err(FetchError::NotInGuest)));
        assert_eq!((config::var("x"), config::all()), (None, vec![]));
    }

    #[test]
    fn a_double_gets_the_whole_request() {
        let _fetch = on_fetch(|request| {
            let timeouts = request.extensions().get::<Timeouts>().copied();
            assert_eq!(timeouts, Some(Timeouts::new().first_byte(Duration::from_secs(5))));
            Ok(Response::new(request.into_body()))
        });
        let request = RequestBuilder::new()
            .method("POST")
            .uri("http://example.com/")
            .extension(Timeouts::new().first_byte(Duration::from_secs(5)))
            .body(Body::stream(|writer| writer.write_all(b"streamed")))
            .expect("a request");
        assert_eq!(fetch(request).expect("an answer").into_body().text().expect("text"), "streamed");
    }

    #[test]
    fn a_double_is_there_as_long_as_its_guard() {
        let status = || fetch(get("http://example.com/")).map(|response| response.status().as_u16()).ok();
        let first = on_fetch(answers(StatusCode::OK));
        {
            let _second = on_fetch(answers(StatusCode::IM_A_TEAPOT));
            assert_eq!(status(), Some(418));
        }
        assert_eq!(status(), Some(200));
        let elsewhere = thread::spawn(|| fetch(get("http://example.com/")).is_err()).join();
        assert!(elsewhere.expect("no panic"), "another test's thread would be answered");
        drop(first);
        assert_eq!(status(), None);
    }

    #[test]
    fn several_at_once_are_each_answered() {
        let _fetch = on_fetch(|request| Ok(Response::new(Body::new(request.uri().path().to_owned()))));
        let pending = ["http://a.example/1", "http://b.example/2"].map(|uri| fetch::start(get(uri)).expect("sent"));
        let texts = pending.map(|one| one.wait().expect("an answer").into_body().text().expect("text"));
        assert_eq!(texts, ["/1", "/2"]);
    }

    #[test]
    fn a_double_may_fetch_itself() {
        let _inner = on_fetch(answers(StatusCode::ACCEPTED));
        let _outer = on_fetch(|request| {
            let _inner = on_fetch(answers(StatusCode::CREATED));
            fetch(request)
        });
        assert_eq!(fetch(get("http://example.com/")).expect("an answer").status(), 201);
    }

    #[test]
    fn a_relative_uri_is_refused_as_a_host_would() {
        let _fetch = on_fetch(answers(StatusCode::OK));
        assert!(matches!(fetch(get("/only/a/path")), Err(FetchError::Invalid("absolute URI"))));
    }

    #[test]
    fn what_is_configured_is_found_until_its_guard_is_dropped() {
        let outer = set_config([("feature_x", "on"), ("limit", "5")]);
        {
            let _inner = set_config([("feature_x", "off")]);
            assert_eq!((config::var("feature_x").as_deref(), config::var("limit")), (Some("off"), None));
        }
        assert_eq!(config::var("feature_x").as_deref(), Some("on"));
        assert_eq!(config::all().len(), 2);
        drop(outer);
        assert_eq!(config::all(), []);
    }
}
