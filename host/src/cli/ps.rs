//! `astra-host ps`: every request in flight, what it has used and what it waits for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread,
    time::Duration,
};

use clap::Args;
use http::Method;

use super::{
    control::{Control, table, word},
    say,
};
use crate::{
    control::client::{self, Client, ClientError, Question},
    status::RequestStatus,
};

const TURN: Duration = Duration::from_secs(1);

/// List the requests in flight, the oldest first
#[derive(Args)]
pub(super) struct Ps {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Again every second
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    control: Control,
}

impl Ps {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let client = self.control.client()?;
        let mut lines = self.lines(&client)?;
        if !self.watch {
            lines.iter().for_each(|line| say(line));
            return Ok(());
        }
        loop {
            match rustix::termios::tcgetwinsize(io::stdout()) {
                Ok(size) if io::stdout().is_terminal() && size.ws_row > 0 => {
                    redraw(&lines, size.ws_row.into(), size.ws_col.into());
                }
                // No terminal, or one that does not say how large it is: a block each time, and an empty line between two.
                _ => lines.iter().map(String::as_str).chain([""]).for_each(say),
            }
            thread::sleep(TURN);
            lines = self.lines(&client)?;
        }
    }

    fn lines(&self, client: &Client) -> Result<Vec<String>, ClientError> {
        let answer = client.ask(question())?;
        Ok(if self.json { vec![answer] } else { describe(&client::parse::<Vec<RequestStatus>>(&answer)?) })
    }
}

pub(super) fn question() -> Question {
    Question::new(Method::GET, &["v1", "requests"])
}

/// The part of an id that tells it from others of its host; `kill` knows it too.
pub(super) fn short(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

fn describe(requests: &[RequestStatus]) -> Vec<String> {
    let row = |request: &RequestStatus| {
        vec![
            word(short(&request.id)),
            word(&request.handler),
            format!("r{}", request.revision),
            time(request.age_ms),
            request.cpu_ms.map_or("-".to_owned(), time),
            word(&request.waits_for),
            word(request.peer.as_deref().unwrap_or("-")),
            word(&request.method),
            word(&request.path),
        ]
    };
    let headings = ["ID", "HANDLER", "REV", "AGE", "CPU", "WAITS", "PEER", "METHOD", "PATH"];
    table(&headings, &requests.iter().map(row).collect::<Vec<_>>())
}

fn time(ms: f64) -> String {
    match ms {
        ..1e3 => format!("{ms:.1}ms"),
        ..60e3 => format!("{:.1}s", ms / 1e3),
        _ => format!("{:.0}m{:02.0}s", (ms / 60e3).floor(), (ms % 60e3 / 1e3).floor()),
    }
}

/// From the top of the screen, what fits.
fn redraw(lines: &[String], rows: usize, columns: usize) {
    let mut screen = "\x1b[H".to_owned();
    let fits = rows.saturating_sub(2);
    for line in lines.iter().take(fits) {
        screen.extend(line.chars().take(columns));
        // What is left of the line before.
        screen.push_str("\x1b[K\n");
    }
    if lines.len() > fits {
        screen.push_str(&format!("and {} more\x1b[K\n", lines.len() - fits));
    }
    screen.push_str("\x1b[J");
    let mut out = io::stdout().lock();
    let _ = out.write_all(screen.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_line_of_less_than_100_columns() {
        let request = RequestStatus {
            id: "19a0c0ffee0-01234567-00000000ff".to_owned(),
            handler: "hello".to_owned(),
            revision: 8,
            age_ms: 83_400.0,
            cpu_ms: Some(1.25),
            waits_for: "body".to_owned(),
            peer: Some("127.0.0.1:54321".to_owned()),
            method: "POST".to_owned(),
            path: "/hello/\u{1b}[2J".to_owned(),
        };
        let waiting = RequestStatus { cpu_ms: None, peer: None, path: "/".to_owned(), ..request.clone() };
        let lines = describe(&[request, waiting]);
        let expected = [
            "ID          HANDLER  REV    AGE    CPU  WAITS  PEER             METHOD  PATH",
            r"00000000ff  hello    r8   1m23s  1.2ms  body   127.0.0.1:54321  POST    /hello/\u{1b}[2J",
            "00000000ff  hello    r8   1m23s      -  body   -                POST    /",
        ];
        assert_eq!(lines, expected);
        assert!(lines.iter().all(|line| line.len() < 100));
    }

    #[test]
    fn times_are_read_at_a_glance() {
        assert_eq!(
            [0.04, 999.0, 1500.0, 60_000.0, 3_661_900.0].map(time),
            ["0.0ms", "999.0ms", "1.5s", "1m00s", "61m01s"]
        );
    }
}
