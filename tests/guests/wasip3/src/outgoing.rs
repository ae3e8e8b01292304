//! `wasi:http/client`: asks the URL that is the query, in the way that the path says, and tells what came of it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use wasip3::{
    http::{
        client,
        types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme},
    },
    wit_bindgen::{self, FutureReader, StreamReader, spawn_local},
    wit_future, wit_stream,
};

use crate::answers::{Trailers, no_trailers, say, shown, stream};

const MEGABYTE: usize = 1 << 20;

/// How sending a request went.
type Sent = FutureReader<Result<(), ErrorCode>>;

pub(crate) async fn answer(how: &str, url: &str, request: Request) -> Result<Response, ErrorCode> {
    let told = match how {
        // What comes is the answer, failures as well.
        "passes" => return client::send(get(url)).await,
        "proxies" => return client::send(proxied(url, request)).await,
        "copies" => return client::send(copied(url, request)).await,
        // The request itself, to another server.
        "forwards" => {
            let target = (Scheme::Http, url);
            request.set_scheme(Some(&target.0)).and_then(|()| request.set_authority(Some(target.1))).expect("valid");
            return client::send(request).await;
        }
        "asks" => told(client::send(get(url)).await).await,
        "posts" => send(to(url, &Method::Post, Fields::new(), Some(megabyte()), no_trailers(), None)).await,
        "puts" => send(to(url, &Method::Put, length(MEGABYTE), Some(megabyte()), no_trailers(), None)).await,
        "posts-nothing" => send(to(url, &Method::Post, Fields::new(), None, no_trailers(), None)).await,
        "sends-trailers" => send(with_trailers(url, &Method::Post, Some(stream("abc")))).await,
        "deletes-with-trailers" => send(with_trailers(url, &Method::Delete, None)).await,
        "leaves" => leaves(url).await,
        "breaks-off" => breaks_off(url).await,
        "traps" => traps(url).await,
        "lies" => lies(url).await,
        "times-out" => send(to(url, &Method::Get, Fields::new(), None, no_trailers(), Some(impatient()))).await,
        "eight" => eight(url).await,
        "hoards" => hoards(url).await,
        "drops" => drops(url).await,
        _ => impossible(url).await,
    };
    Ok(say(told))
}

fn to(
    url: &str,
    method: &Method,
    fields: Fields,
    contents: Option<StreamReader<u8>>,
    trailers: FutureReader<Trailers>,
    options: Option<RequestOptions>,
) -> (Request, Sent) {
    let (request, sent) = Request::new(fields, contents, trailers, options);
    let (scheme, rest) = url.split_once("://").expect("an absolute URL");
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_method(method).expect("a method");
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query((!path.is_empty()).then_some(path)).expect("a path");
    (request, sent)
}

fn get(url: &str) -> Request {
    to(url, &Method::Get, Fields::new(), None, no_trailers(), None).0
}

fn length(length: usize) -> Fields {
    Fields::from_list(&[("content-length".to_owned(), length.to_string().into_bytes())]).expect("a length")
}

fn megabyte() -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        for _ in 0..MEGABYTE / 4096 {
            if !writer.write_all(vec![b's'; 4096]).await.is_empty() {
                return; // nobody reads it
            }
        }
    });
    reader
}

fn impatient() -> RequestOptions {
    let options = RequestOptions::new();
    let after = Some(200_000_000);
    let set = options.set_connect_timeout(after).and_then(|()| options.set_first_byte_timeout(after));
    set.and_then(|()| options.set_between_bytes_timeout(after)).expect("they are all supported");
    options
}

/// All of a response, or why there is none.
async fn told(answered: Result<Response, ErrorCode>) -> String {
    let response = match answered {
        Ok(response) => response,
        Err(code) => return format!("{code:?}"),
    };
    let status = response.get_status_code();
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(response, read_well);
    let body = body.collect().await;
    let body = if body.len() < 1000 { String::from_utf8_lossy(&body).into_owned() } else { body.len().to_string() };
    format!("{status} {body}, {}", shown(trailers.await))
}

async fn send((request, sent): (Request, Sent)) -> String {
    let told = told(client::send(request).await).await;
    format!("{told}; sent: {:?}", sent.await)
}

/// The body as it comes, through no task of the guest's.
fn proxied(url: &str, request: Request) -> Request {
    let method = request.get_method();
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, read_well);
    to(url, &method, Fields::new(), Some(body), trailers, None).0
}

/// The same, piece by piece.
fn copied(url: &str, request: Request) -> Request {
    let method = request.get_method();
    let (_, read_well) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Request::consume_body(request, read_well);
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        loop {
            let (status, bytes) = body.read(Vec::with_capacity(10_000)).await;
            let has_ended = !matches!(status, wit_bindgen::StreamResult::Complete(_));
            if !writer.write_all(bytes).await.is_empty() || has_ended {
                break;
            }
        }
    });
    to(url, &method, Fields::new(), Some(reader), trailers, None).0
}

fn with_trailers(url: &str, method: &Method, contents: Option<StreamReader<u8>>) -> (Request, Sent) {
    let (trailers, trailers_rx) = wit_future::new(|| Ok(None));
    let fields = Fields::from_list(&[("trailer".to_owned(), b"x-sum".to_vec())]).expect("a field");
    spawn_local(async move {
        let fields = Fields::from_list(&[("x-sum".to_owned(), b"3".to_vec())]).expect("a field");
        let _ = trailers.write(Ok(Some(fields))).await;
    });
    to(url, method, fields, contents, trailers_rx, None)
}

/// Writes its body when the answer has begun, and waits for nothing then.
async fn leaves(url: &str) -> String {
    let (mut writer, reader) = wit_stream::new();
    let (request, _) = to(url, &Method::Post, Fields::new(), Some(reader), no_trailers(), None);
    let answered = client::send(request).await;
    writer.write_all(b"all of it".to_vec()).await;
    answered.map_or_else(|code| format!("{code:?}"), |response| response.get_status_code().to_string())
}

/// Half a body, and then an error in place of its end.
async fn breaks_off(url: &str) -> String {
    let (mut writer, reader) = wit_stream::new();
    let (trailers, trailers_rx) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        writer.write_all(b"half".to_vec()).await;
        drop(writer);
        let _ = trailers.write(Err(ErrorCode::InternalError(Some("no more".to_owned())))).await;
    });
    told(client::send(to(url, &Method::Post, Fields::new(), Some(reader), trailers_rx, None).0).await).await
}

/// Half a body, and a panic when the answer has begun.
async fn traps(url: &str) -> String {
    let (mut writer, reader) = wit_stream::new();
    spawn_local(async move {
        writer.write_all(b"half".to_vec()).await;
        std::future::pending::<()>().await;
    });
    let (request, _) = to(url, &Method::Post, Fields::new(), Some(reader), no_trailers(), None);
    panic!("as it shall, with {:?}", client::send(request).await.map(|response| response.get_status_code()));
}

/// Eleven bytes are announced and come; then three, then eighteen.
async fn lies(url: &str) -> String {
    let mut text = String::new();
    for bytes in ["long enough", "msg", "more than 11 bytes"] {
        let (request, sent) = to(url, &Method::Post, length(11), Some(stream(bytes)), no_trailers(), None);
        let answered = client::send(request).await.is_ok_and(|response| response.get_status_code() == 200);
        text += &format!("{} bytes: {:?}, answered {answered}\n", bytes.len(), sent.await);
    }
    text
}

async fn eight(url: &str) -> String {
    let mut pending: Vec<_> = (0..8).map(|_| Box::pin(async { told(client::send(get(url)).await).await })).collect();
    let mut text = String::new();
    poll_fn(|cx| {
        pending.retain_mut(|one| match one.as_mut().poll(cx) {
            Poll::Ready(told) => {
                text += &format!("{told}\n");
                false
            }
            Poll::Pending => true,
        });
        if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    text
}

/// Starts requests until there may be no more.
async fn hoards(url: &str) -> String {
    let mut pending: Vec<Pin<Box<dyn Future<Output = _>>>> = Vec::new();
    loop {
        let mut one_more: Pin<Box<dyn Future<Output = _>>> = Box::pin(client::send(get(url)));
        let polled = poll_fn(|cx| Poll::Ready(one_more.as_mut().poll(cx))).await;
        match polled {
            Poll::Pending => pending.push(one_more),
            Poll::Ready(answered) => return format!("{}, then {}", pending.len(), told(answered).await),
        }
    }
}

/// What is given up at each stage disturbs no other.
async fn drops(url: &str) -> String {
    {
        let mut given_up = pin!(client::send(get(url)));
        let _ = poll_fn(|cx| Poll::Ready(given_up.as_mut().poll(cx))).await;
    }
    drop(client::send(get(url)).await);
    if let Ok(response) = client::send(get(url)).await {
        let (_, read_well) = wit_future::new(|| Ok(()));
        let (mut body, trailers) = Response::consume_body(response, read_well);
        drop(body.read(Vec::with_capacity(1)).await);
        drop((body, trailers));
    }
    told(client::send(get(url)).await).await
}

/// What cannot be sent, to a server that would answer.
async fn impossible(url: &str) -> String {
    let mut text = String::new();
    let mut say = |what: &str, answered: Result<Response, ErrorCode>| {
        text += &format!("{what}: {}\n", answered.map_or_else(|code| format!("{code:?}"), |_| "answered".to_owned()));
    };
    let (_, rest) = url.split_once("://").expect("an absolute URL");
    say("another scheme", client::send(get(&format!("ws://{rest}"))).await);
    say("CONNECT", client::send(to(url, &Method::Connect, Fields::new(), None, no_trailers(), None).0).await);
    say("a user", client::send(get(&format!("http://user@{rest}"))).await);
    say("port 0", client::send(get("http://127.0.0.1:0/")).await);
    let nowhere = get(url);
    nowhere.set_authority(None).expect("it may have none");
    say("no authority", client::send(nowhere).await);
    say("no path", client::send(get(url.trim_end_matches('/'))).await);
    let in_secret = get(url);
    in_secret.set_scheme(None).expect("it may have none");
    say("no scheme", client::send(in_secret).await);
    text
}
