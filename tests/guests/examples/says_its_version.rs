//! Answers with a text that the tests replace in the finished file, so that one guest is many modules:
//! `/` says it, `/big` says it 5,000 times, `/stream?count=3&ms=10` says it as often and slowly as it is told, `/sleep?ms=10` says it
//! late, `/trap` traps, `/500` answers 500.

use std::{hint::black_box, thread, time::Duration};

use guest_sdk::{Body, Request, Response, handler, http::StatusCode};

static VERSION: &str = "version-0000";

#[handler]
fn say(request: Request) -> Response {
    let version = black_box(VERSION);
    let number = |name: &str, default: u64| {
        let query = request.uri().query().unwrap_or_default();
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    let pause = Duration::from_millis(number("ms", 0));
    match request.uri().path() {
        "/big" => Response::new(Body::new(version.repeat(5_000))),
        "/stream" => {
            let count = number("count", 3);
            Response::new(Body::stream(move |writer| {
                for _ in 0..count {
                    writer.write_all(version.as_bytes())?;
                    writer.flush()?;
                    thread::sleep(pause);
                }
                Ok(())
            }))
        }
        "/sleep" => {
            thread::sleep(pause);
            Response::new(Body::new(version))
        }
        "/trap" => panic!("asked to trap"),
        "/500" => {
            let mut response = Response::new(Body::new(version));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
        _ => Response::new(Body::new(version)),
    }
}
