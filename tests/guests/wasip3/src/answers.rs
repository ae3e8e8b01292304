//! The ways to answer, in order and not: with bodies, statuses and trailers, at once and late, with what was sent, and not at all.

use wasip3::{
    clocks::monotonic_clock,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::{self, FutureReader, FutureWriter, StreamReader, StreamWriter, spawn_local},
    wit_future, wit_stream,
};

use crate::system;

const HOUR: u64 = 3_600_000_000_000;
const TEXT: &str = "Hello World!";

/// What comes after a body.
pub(crate) type Trailers = Result<Option<Fields>, ErrorCode>;

/// 200 with a text.
pub(crate) fn say(text: impl Into<Vec<u8>>) -> Response {
    with(Fields::new(), stream(text))
}

/// 200 with fields, contents, and no trailers.
pub(crate) fn with(fields: Fields, contents: StreamReader<u8>) -> Response {
    Response::new(fields, Some(contents), no_trailers()).0
}

/// What is written by a task of its own.
pub(crate) fn stream(bytes: impl Into<Vec<u8>>) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    let bytes = bytes.into();
    spawn_local(async move {
        writer.write_all(bytes).await;
    });
    reader
}

pub(crate) fn no_trailers() -> FutureReader<Trailers> {
    wit_future::new(|| Ok(None)).1
}

/// All of a request's body, and its trailers.
pub(crate) async fn collect(request: Request) -> (Vec<u8>, Trailers) {
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, read_well);
    (body.collect().await, trailers.await)
}

/// Trailers as a text.
pub(crate) fn shown(trailers: Trailers) -> String {
    let fields =
        |fields: Fields| fields.copy_all().into_iter().map(|(n, v)| (n, String::from_utf8_lossy(&v).into_owned()));
    match trailers {
        Ok(None) => "no trailers".to_owned(),
        Ok(Some(trailers)) => format!("{:?}", fields(trailers).collect::<Vec<_>>()),
        Err(code) => format!("{code:?}"),
    }
}

pub(crate) async fn answer(how: &str, query: &str, request: Request) -> Result<Response, ErrorCode> {
    match how {
        "echo" => Ok(echo(request)),
        "collects" => {
            let (body, trailers) = collect(request).await;
            Ok(say(format!("{} bytes, {}", body.len(), shown(trailers))))
        }
        "ignores-its-body" => Ok(say(TEXT)),
        "request" => Ok(say(format!(
            "{:?} {:?} {:?} {}",
            request.get_method(),
            request.get_scheme(),
            request.get_authority(),
            request.get_path_with_query().unwrap_or_default()
        ))),
        "refuses" => Err(ErrorCode::DnsTimeout),
        "traps" => panic!("as it shall"),
        "sleeps" | "naps-and-sleeps" => {
            if how == "naps-and-sleeps" {
                nap();
            }
            monotonic_clock::wait_for(HOUR).await;
            Ok(say(TEXT))
        }
        "spins" => loop {
            std::hint::spin_loop();
        },
        "yields" => loop {
            wit_bindgen::yield_async().await;
        },
        "starts-tasks-without-end" => loop {
            spawn_local(monotonic_clock::wait_for(HOUR));
            wit_bindgen::yield_async().await;
        },
        "sleeps-in-std" => {
            nap();
            Ok(say(TEXT))
        }
        "status" => with_status(query, say(TEXT)),
        // Long as it is, there is nothing of it.
        "announces" => with_status(query, Response::new(length(TEXT.len()), None, no_trailers()).0),
        "announces-an-empty-one" => with_status(query, with(length(TEXT.len()), stream(""))),
        "exits" => {
            system::exit(query);
            Ok(say(TEXT))
        }
        _ => Ok(later(how, query)),
    }
}

/// As the standard library does: by a call of 0.2, which blocks.
fn nap() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

fn length(length: usize) -> Fields {
    let fields = Fields::new();
    let _ = fields.append("content-length", length.to_string().as_bytes());
    fields
}

fn with_status(status: &str, response: Response) -> Result<Response, ErrorCode> {
    let set = response.set_status_code(status.parse().unwrap_or(0));
    set.map(|()| response).map_err(|()| ErrorCode::InternalError(Some(format!("{status} is no status"))))
}

/// Answers of which it shows only after their head what becomes of them.
fn later(how: &str, query: &str) -> Response {
    let (body, contents) = wit_stream::new();
    let (trailers, trailers_rx) = wit_future::new(|| Ok(None));
    let fields = match how {
        "too-short" => length(100),
        "too-long" => length(5),
        "is-whole-then-traps" => length(TEXT.len()),
        _ => Fields::new(),
    };
    if how == "trailers" {
        let _ = fields.append("trailer", b"x-checksum");
    }
    let (response, sent) = Response::new(fields, Some(contents), trailers_rx);
    let (how, query) = (how.to_owned(), query.to_owned());
    if how.ends_with("-afterwards") {
        spawn_local(async move {
            end(body, trailers).await;
            tell(sent).await;
            go_on_afterwards(&how, &query).await;
        });
        return response;
    }
    if query == "tells" {
        spawn_local(tell(sent));
    }
    spawn_local(async move { go_on(&how, body, trailers).await });
    response
}

async fn tell(sent: FutureReader<Result<(), ErrorCode>>) {
    system::print(format!("it went {:?}\n", sent.await)).await;
}

/// The whole of an answer.
async fn end(mut body: StreamWriter<u8>, trailers: FutureWriter<Trailers>) {
    body.write_all(TEXT.into()).await;
    drop(body);
    drop(trailers);
}

/// When the host has taken all of it, and so many milliseconds after that.
async fn go_on_afterwards(how: &str, query: &str) {
    monotonic_clock::wait_for(query.parse::<u64>().unwrap_or(0) * 1_000_000).await;
    match how {
        "naps-afterwards" => nap(),
        "spins-afterwards" => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
    system::print("has gone on after the answer\n".to_owned()).await;
    if how == "exits-afterwards" {
        system::exit("0");
    }
}

async fn go_on(how: &str, mut body: StreamWriter<u8>, trailers: FutureWriter<Trailers>) {
    body.write_all(TEXT.into()).await;
    match how {
        "slowly" => monotonic_clock::wait_for(HOUR).await,
        "traps-later" | "is-whole-then-traps" => {
            monotonic_clock::wait_for(10_000_000).await;
            panic!("as it shall");
        }
        "spins-later" => {
            monotonic_clock::wait_for(10_000_000).await;
            loop {
                std::hint::spin_loop();
            }
        }
        "without-end" => while body.write_all(vec![b'x'; 10_000]).await.is_empty() {},
        "forgets-its-end" => std::mem::forget(body),
        "fails-later" | "fails-and-goes-on" => {
            monotonic_clock::wait_for(10_000_000).await;
            drop(body);
            let _ = trailers.write(Err(ErrorCode::InternalError(None))).await;
            if how == "fails-and-goes-on" {
                monotonic_clock::wait_for(HOUR).await;
            }
        }
        "fails-at-once" => {
            drop(body);
            let _ = trailers.write(Err(ErrorCode::InternalError(None))).await;
        }
        "trailers" => {
            drop(body);
            let fields = Fields::new();
            let _ = fields.append("x-checksum", b"abc");
            let _ = trailers.write(Ok(Some(fields))).await;
        }
        _ => {}
    }
}

/// Each piece goes back as it comes, and what comes after them.
fn echo(request: Request) -> Response {
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Request::consume_body(request, read_well);
    let (mut copy, contents) = wit_stream::new();
    let (response, _sent) = Response::new(Fields::new(), Some(contents), trailers);
    spawn_local(async move {
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
