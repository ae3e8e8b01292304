//! Sends `data` and the trailer `x-checksum`, and before it the trailers it got itself, one a line.

use guest_sdk::{Body, HeaderMap, HeaderName, HeaderValue, Request, Response, ResponseBuilder, handler, http};

#[handler]
fn trailers(mut request: Request) -> Result<Response, http::Error> {
    ResponseBuilder::new().header("trailer", "x-checksum").body(Body::stream_with_trailers(move |writer| {
        for (name, value) in &request.body_mut().trailers()? {
            writeln!(writer, "{name}: {}", value.as_bytes().escape_ascii())?;
        }
        writer.write_all(b"data")?;
        let checksum = (HeaderName::from_static("x-checksum"), HeaderValue::from_static("8d777f38"));
        Ok(HeaderMap::from_iter([checksum]))
    }))
}
