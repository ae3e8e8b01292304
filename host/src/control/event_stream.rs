//! Events on their way out: server-sent events (WHATWG HTML, section 9.2) as they happen. Runs on a worker for as long as somebody
//! follows.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use astra_server::blocking;

use crate::events::{Event, Events};

/// How long a client that is gone, or a host that stops, may go unnoticed.
const LOOK: Duration = Duration::from_secs(1);

/// How often something is said although nothing happens: a client that is gone without a word is noticed by writing to it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Where to begin for a client that has seen everything up to `last_seen`, or that does not care about what was before it came.
pub(super) fn start(events: &Events, last_seen: Option<u64>) -> u64 {
    let last = events.last();
    match last_seen {
        None => last,
        // From before the host was started anew: it has seen none of these.
        Some(seen) if seen > last => 0,
        Some(seen) => seen,
    }
}

/// Writes what happens after event `last` until there will be no more.
///
/// # Errors
/// The client is gone.
pub(super) fn follow(events: &Events, mut last: u64, writer: &mut impl Write) -> io::Result<()> {
    let mut said = Instant::now();
    while let Some(news) = blocking(|| events.after(last, LOOK)) {
        for event in &news {
            write_event(writer, event)?;
            last = event.id;
        }
        if !news.is_empty() {
            said = Instant::now();
        } else if said.elapsed() >= HEARTBEAT {
            writer.write_all(b": nothing new\n\n")?;
            said = Instant::now();
        }
        // Fails also with nothing to send, once the client is known to be gone.
        writer.flush()?;
    }
    Ok(())
}

fn write_event(writer: &mut impl Write, event: &Event) -> io::Result<()> {
    // JSON as it is written here has no line ends, so one line of data it is.
    let data = serde_json::to_string(event)?;
    write!(writer, "id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Urgency;

    #[test]
    fn a_client_resumes_where_it_was() {
        let events = Events::default();
        for text in ["one", "two\nlines", "three"] {
            events.tell(Urgency::Normal, "swap", Some("hello"), text.to_owned(), None);
        }
        assert_eq!([None, Some(1), Some(99)].map(|seen| start(&events, seen)), [3, 1, 0]);
        events.end();
        let mut out = Vec::new();
        follow(&events, 1, &mut out).expect("writes");
        let out = String::from_utf8(out).expect("is text");
        let blocks: Vec<_> = out.split_terminator("\n\n").collect();
        assert_eq!(blocks.len(), 2, "{out}");
        let lines: Vec<_> = blocks[0].lines().collect();
        assert_eq!(lines[..2], ["id: 2", "event: swap"]);
        let event: Event = serde_json::from_str(&lines[2]["data: ".len()..]).expect("is an event");
        assert_eq!(event.text, "two\nlines");
    }
}
