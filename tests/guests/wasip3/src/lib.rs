//! Answers as the path says: a greeting, what it is sent, its own view of the request, or one of the ways in which a guest can fail.
#![cfg(target_family = "wasm")]
#![allow(missing_docs, reason = "what `export!` makes")]

use wasip3::{
    clocks::monotonic_clock,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen, wit_future, wit_stream,
};

wasip3::http::service::export!(Guest);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match path.as_str() {
            "/echo" => return Ok(echo(request)),
            "/refuses" => return Err(ErrorCode::DnsTimeout),
            "/traps" => panic!("as it shall"),
            "/sleeps" => monotonic_clock::wait_for(60_000_000_000).await,
            "/spins" => loop {
                std::hint::spin_loop();
            },
            "/sleeps-in-std" => std::thread::sleep(std::time::Duration::from_millis(20)),
            _ => {}
        }
        let text = match path.as_str() {
            _ if path.starts_with("/looks-up?") => {
                let name = path.trim_start_matches("/looks-up?").to_owned();
                format!("{:?}", wasip3::sockets::ip_name_lookup::resolve_addresses(name).await)
            }
            "/request" => {
                format!("{:?} {:?} {:?} {path}", request.get_method(), request.get_scheme(), request.get_authority())
            }
            _ => "Hello World!".to_owned(),
        };
        let (mut body, contents) = wit_stream::new();
        let (trailers, trailers_rx) = wit_future::new(|| Ok(None));
        let headers = Fields::new();
        if path == "/too-short" {
            let _ = headers.append("content-length", b"100");
        }
        let (response, _sent) = Response::new(headers, Some(contents), trailers_rx);
        wit_bindgen::spawn_local(async move {
            body.write_all(text.into_bytes()).await;
            match path.as_str() {
                "/slowly" => monotonic_clock::wait_for(60_000_000_000).await,
                "/traps-later" => {
                    monotonic_clock::wait_for(10_000_000).await;
                    panic!("as it shall");
                }
                "/without-end" => while body.write_all(vec![b'x'; 10_000]).await.is_empty() {},
                "/fails-later" => {
                    drop(body);
                    let _ = trailers.write(Err(ErrorCode::InternalError(None))).await;
                    return;
                }
                "/trailers" => {
                    drop(body);
                    let fields = Fields::new();
                    let _ = fields.append("x-checksum", b"abc");
                    let _ = trailers.write(Ok(Some(fields))).await;
                    return;
                }
                _ => {}
            }
            drop(body);
            let _ = trailers.write(Ok(None)).await;
        });
        Ok(response)
    }
}

fn echo(request: Request) -> Response {
    let headers = Fields::new();
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Request::consume_body(request, read_well);
    let (mut copy, contents) = wit_stream::new();
    let (response, _sent) = Response::new(headers, Some(contents), trailers);
    wit_bindgen::spawn_local(async move {
        loop {
            let (status, bytes) = body.read(Vec::with_capacity(10_000)).await;
            let has_ended = !matches!(status, wit_bindgen::StreamResult::Complete(_));
            if !copy.write_all(bytes).await.is_empty() || has_ended {
                break;
            }
        }
    });
    response
}
