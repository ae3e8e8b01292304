//! Uses all of guest-sdk's `fetch`, in the way that its path names, on the URL that is its query: `/get?http://…`. Answers with what came;
//! an error is told by name, with its status.

use std::{io, time::Duration};

use guest_sdk::{
    Body, FetchError, IntoResponse, Request, RequestBuilder, Response, StatusCode, Uri, fetch, fetch::Timeouts, handler,
};

#[handler]
fn fetches(mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let url: Uri = request.uri().query().and_then(|url| url.parse().ok()).unwrap_or_default();
    let to = || RequestBuilder::new().uri(url.clone());
    let get = || sent(to().body(Body::empty()));
    let answer = match path.as_str() {
        "/get" => fetch(get()),
        // Both ways as it comes.
        "/proxy" => {
            *request.uri_mut() = url.clone();
            fetch(request)
        }
        // A megabyte, written by a function.
        "/stream" => fetch(sent(
            to().method("POST").body(Body::stream(|writer| (0..256).try_for_each(|_| writer.write_all(&[b's'; 4096])))),
        )),
        // A megabyte, read from a reader.
        "/reader" => {
            let megabyte = io::Read::take(io::repeat(b'r'), 1 << 20);
            fetch(sent(to().method("PUT").body(Body::wrap_reader(megabyte))))
        }
        // A megabyte, in memory.
        "/memory" => fetch(sent(to().method("PUT").body(Body::new(vec![b'm'; 1 << 20])))),
        // A body that fails half-way.
        "/breaks" => fetch(sent(to().method("POST").body(Body::stream(|writer| {
            writer.write_all(b"half of it")?;
            writer.flush()?;
            Err(io::Error::other("no more"))
        })))),
        // A body that is longer than it says.
        "/lies" => fetch(sent(to().method("POST").header("content-length", "3").body(Body::new("four")))),
        // All are sent before the first is waited for, and waited for in the wrong order.
        "/eight" => eight(get),
        // What is dropped at each stage ends its exchange, and disturbs no other.
        "/drops" => drops(get),
        // As many as there may be at once.
        "/hoards" => hoards(get),
        // The time-outs are 200 ms.
        "/timeouts" => {
            let after = Duration::from_millis(200);
            let timeouts = Timeouts::new().connect(after).first_byte(after).between_bytes(after);
            fetch(sent(to().extension(timeouts).body(Body::empty()))).and_then(collected)
        }
        // The whole response, in memory, with its trailers.
        "/collect" => fetch(get()).and_then(collected),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    answer.unwrap_or_else(|error| (error.status(), format!("{error:?}: {error}\n")).into_response())
}

fn sent(request: Result<Request, guest_sdk::http::Error>) -> Request {
    request.expect("a request")
}

fn eight(get: impl Fn() -> Request) -> Result<Response, FetchError> {
    let mut pending = (0..8).map(|_| fetch::start(get())).collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    while let Some(last) = pending.pop() {
        text.push_str(&last.wait()?.into_body().text()?);
    }
    Ok(text.into_response())
}

fn drops(get: impl Fn() -> Request) -> Result<Response, FetchError> {
    drop(fetch::start(get())?);
    drop(fetch(get())?);
    let mut opened = fetch(get())?;
    let _ = io::Read::read(&mut opened.body_mut().reader(), &mut [0; 1]);
    drop(opened);
    fetch(get())
}

fn hoards(get: impl Fn() -> Request) -> Result<Response, FetchError> {
    let mut pending = Vec::new();
    loop {
        match fetch::start(get()) {
            Ok(one_more) => pending.push(one_more),
            Err(error) => return Ok(format!("{}, then {error:?}", pending.len()).into_response()),
        }
    }
}

fn collected(response: Response) -> Result<Response, FetchError> {
    let (head, mut body) = response.into_parts();
    let failed = |error: &io::Error| FetchError::Failed(format!("reading: {:?}", FetchError::of(error)));
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut body.reader(), &mut bytes).map_err(|error| failed(&error))?;
    let trailers = body.trailers().map_err(|error| failed(&error))?;
    Ok((head.status, format!("{} bytes, trailers {trailers:?}\n", bytes.len())).into_response())
}
