//! Gets the URL in each of its `url` headers, all at once, and writes a line for each as it is done: the URL, and its length and sum or
//! its error.
//!
//! The host must have all of them in flight together, wake the guest for whichever is ready, and deliver each line before the last
//! upstream has answered. A URL that is not granted is `HttpRequestDenied`, and does not disturb the others.
#![cfg(target_family = "wasm")]

use test_guests::{
    out,
    wasip2::{
        http::{
            outgoing_handler::handle,
            types::{FutureIncomingResponse, IncomingBody, IncomingRequest, Method, OutgoingBody, ResponseOutparam},
        },
        io::{
            poll::{Pollable, poll},
            streams::{InputStream, StreamError},
        },
    },
};

test_guests::export!(sum);

enum Stage {
    Waits(FutureIncomingResponse),
    Reads(InputStream, IncomingBody, Sum),
}

#[derive(Default)]
struct Sum {
    length: u64,
    sum: u64,
}

impl Stage {
    fn pollable(&self) -> Pollable {
        match self {
            Self::Waits(future) => future.subscribe(),
            Self::Reads(stream, ..) => stream.subscribe(),
        }
    }

    /// One step, when its pollable is ready; the text at its end.
    fn step(self) -> Result<Self, String> {
        match self {
            Self::Waits(future) => {
                let response = out::wait(&future).map_err(|code| format!("{code:?}"))?;
                let body = response.consume().expect("the first call");
                Ok(Self::Reads(body.stream().expect("the first call"), body, Sum::default()))
            }
            Self::Reads(stream, body, mut sum) => match stream.read(64 * 1024) {
                Ok(chunk) => {
                    sum.length += chunk.len() as u64;
                    sum.sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                    Ok(Self::Reads(stream, body, sum))
                }
                Err(error) => {
                    drop(stream); // before its body
                    Err(match error {
                        StreamError::Closed => format!("{} bytes, sum {}", sum.length, sum.sum),
                        StreamError::LastOperationFailed(_) => "it broke off".to_owned(),
                    })
                }
            },
        }
    }
}

fn sum(request: &IncomingRequest, responder: ResponseOutparam) {
    let urls: Vec<String> =
        request.headers().get("url").into_iter().map(|url| String::from_utf8(url).expect("a URL")).collect();
    let answer = test_guests::head(responder, 200, &[]);
    let lines = answer.write().expect("the first call");
    let say = |url: &str, text: &str| {
        lines.blocking_write_and_flush(format!("{url}: {text}\n").as_bytes()).expect("a client that reads");
    };
    let mut ongoing = Vec::new();
    for url in urls {
        match handle(out::request(&Method::Get, &url, &[]), None) {
            Ok(future) => ongoing.push((url, Stage::Waits(future))),
            Err(code) => say(&url, &format!("{code:?}")),
        }
    }
    while !ongoing.is_empty() {
        let pollables: Vec<_> = ongoing.iter().map(|(_, stage)| stage.pollable()).collect();
        let mut ready = poll(&pollables.iter().collect::<Vec<_>>());
        drop(pollables);
        // From the back, so that taking one out moves none of those before it.
        ready.sort_unstable();
        for index in ready.into_iter().rev() {
            let (url, stage) = ongoing.swap_remove(index as usize);
            match stage.step() {
                Ok(next) => ongoing.push((url, next)),
                Err(text) => say(&url, &text),
            }
        }
    }
    drop(lines);
    OutgoingBody::finish(answer, None).expect("a finished body");
}
