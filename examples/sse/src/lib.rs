//! A clock that ticks: server-sent events, once a second or as `?ms=` says, for ever or `?count=` times.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, SystemTime},
};

use guest_sdk::{
    Body, Request, Response, ResponseBuilder, handler,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    http,
};

#[handler]
fn clock(request: Request) -> Result<Response, http::Error> {
    let every = Duration::from_millis(number(&request, "ms").unwrap_or(1000));
    let count = number(&request, "count").unwrap_or(u64::MAX);
    ResponseBuilder::new()
        .header(CONTENT_TYPE, "text/event-stream")
        .header(CACHE_CONTROL, "no-store")
        .body(Body::stream(move |writer| tick(writer, every, count)))
}

/// Ends when the client goes away: then writing fails.
fn tick(writer: &mut dyn Write, every: Duration, count: u64) -> io::Result<()> {
    for id in 1..=count {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(writer, "id: {id}\ndata: {hours:02}:{minutes:02}:{seconds:02} UTC\n\n")?;
        writer.flush()?;
        if id < count {
            thread::sleep(every);
        }
    }
    Ok(())
}

/// The number that `name` has in the query.
fn number(request: &Request, name: &str) -> Option<u64> {
    let mut pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use guest_sdk::RequestBuilder;

    use super::*;

    #[test]
    fn each_tick_is_an_event() {
        let request = RequestBuilder::new().uri("/?ms=1&count=3").body(Body::empty()).expect("a request");
        let response = clock(request).expect("a response");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let text = response.into_body().text().expect("text");
        let events: Vec<_> = text.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 3);
        assert!(events[2].starts_with("id: 3\ndata: ") && events[2].ends_with(" UTC"), "{text}");
    }
}
