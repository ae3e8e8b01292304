//! A guest of WASI 0.3: `handle` is asynchronous, bodies are streams.

use wasip3::{
    clocks::monotonic_clock,
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Method, Request, Response},
    wit_bindgen::{StreamReader, spawn_local},
    wit_future, wit_stream,
};

wasip3::http::service::export!(App);

struct App;

impl Guest for App {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match (request.get_method(), path.as_str()) {
            (Method::Get, "/") => Ok(respond(200, text("Hello World!"))),
            (Method::Get, "/stream") => Ok(respond(200, count(3))),
            // The stream of the request becomes the response's: no byte passes through the guest.
            (Method::Post, "/echo") => {
                let (_, read) = wit_future::new(|| Ok(()));
                let (body, _trailers) = Request::consume_body(request, read);
                Ok(respond(200, body))
            }
            _ => Ok(respond(404, text("not found\n"))),
        }
    }
}

fn respond(status: u16, body: StreamReader<u8>) -> Response {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), no_trailers);
    // Only numbers that are no status are refused.
    let _ = response.set_status_code(status);
    response
}

fn text(text: &'static str) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        writer.write_all(text.into()).await;
    });
    reader
}

/// A line every 100 ms.
fn count(end: u32) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        for i in 1..=end {
            writer.write_all(format!("{i}\n").into()).await;
            monotonic_clock::wait_for(100_000_000).await;
        }
    });
    reader
}
