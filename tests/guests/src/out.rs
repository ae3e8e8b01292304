//! Outgoing requests, step by step: what guest-sdk's `fetch` does behind its author's back, for the guests that test the steps.

use wasip2::{
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse, Method,
            OutgoingBody, OutgoingRequest, Scheme, http_error_code,
        },
    },
    io::streams::{InputStream, OutputStream, StreamError},
};

/// The URL that is the query of the guest's own request.
pub fn url(request: &IncomingRequest) -> String {
    let path_and_query = request.path_with_query().unwrap_or_default();
    path_and_query.split_once('?').map_or(String::new(), |(_, url)| url.to_owned())
}

/// A request to a URL, without a body so far.
pub fn request(method: &Method, url: &str, headers: &[(&str, &str)]) -> OutgoingRequest {
    let fields: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let request = OutgoingRequest::new(Fields::from_list(&fields).expect("valid headers"));
    let (scheme, rest) = url.split_once("://").expect("an absolute URL");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_method(method).expect("a valid method");
    request.set_scheme(Some(&scheme)).expect("a valid scheme");
    request.set_authority(Some(authority)).expect("a valid authority");
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).expect("a valid path");
    request
}

/// Sends a request without a body, and waits.
pub fn send(request: OutgoingRequest) -> Result<IncomingResponse, ErrorCode> {
    wait(&outgoing_handler::handle(request, None)?)
}

/// Waits for the head of a response.
pub fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    future.get().expect("it is ready").expect("it was not taken before")
}

/// A whole response: its status and its body, or what reading that ended with.
pub fn read(response: &IncomingResponse) -> String {
    let body = response.consume().expect("the first call");
    let stream = body.stream().expect("the first call");
    let mut text = format!("{} ", response.status());
    let ended = read_stream(&stream, |chunk| text += &String::from_utf8_lossy(&chunk));
    drop(stream);
    drop(IncomingBody::finish(body));
    match ended {
        Ok(()) => text,
        Err(code) => format!("{text} then {code:?}"),
    }
}

/// Reads to the end. The error is what `http-error-code` says about the stream's.
pub fn read_stream(stream: &InputStream, mut take: impl FnMut(Vec<u8>)) -> Result<(), Option<ErrorCode>> {
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => take(chunk),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => return Err(http_error_code(&error)),
        }
    }
}

/// Writes as `check-write` allows, and waits with a pollable when it does not.
pub fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let allowed = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX).min(bytes.len());
        if allowed == 0 {
            stream.subscribe().block();
        } else {
            stream.write(&bytes[..allowed])?;
            bytes = &bytes[allowed..];
        }
    }
    Ok(())
}

/// Sends a request with a body, and waits.
pub fn send_with_body(request: OutgoingRequest, bytes: &[u8]) -> Result<IncomingResponse, ErrorCode> {
    let body = request.body().expect("the first call");
    let future = outgoing_handler::handle(request, None)?;
    let stream = body.write().expect("the first call");
    let _ = write_all(&stream, bytes); // the response says why, if it is refused
    drop(stream);
    OutgoingBody::finish(body, None)?;
    wait(&future)
}
