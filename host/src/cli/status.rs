//! `astra-host status`: what a running host serves.

use clap::Args;
use http::Method;

use super::{
    control::{Control, say_text, table, word},
    say,
};
use crate::{
    control::client::{self, Question},
    status::{HandlerStatus, RevisionStatus, Status, Traffic},
};

/// Show what a running host serves: handlers, revisions, requests, failures, the last receipts
#[derive(Args)]
pub(super) struct StatusCommand {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    control: Control,
}

impl StatusCommand {
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let answer = self.control.client()?.ask(Question::new(Method::GET, &["v1", "status"]))?;
        if self.json {
            say(&answer);
        } else {
            say_text(&describe(&client::parse(&answer)?));
        }
        Ok(())
    }
}

fn describe(status: &Status) -> String {
    let Status { version, pid, started, listen, config, traffic, handlers } = status;
    let config = config.as_ref().map(|path| format!(", {path}")).unwrap_or_default();
    let mut lines = vec![format!("astra-host {version}, pid {pid}, since {started}, {}{config}", listen.join(" "))];
    let Traffic { connections, accepted, in_flight, queued, events } = traffic;
    lines.push(format!(
        "connections: {connections} open, {accepted} accepted; requests: {in_flight} in flight, {queued} queued"
    ));
    let events: Vec<_> =
        events.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} {count}")).collect();
    if !events.is_empty() {
        lines.push(format!("since the start: {}", events.join(", ")));
    }
    lines.push(String::new());
    lines.extend(table(
        &["HANDLER", "REV", "STATE", "IN FLIGHT", "REQUESTS", "FAILURES", "SHA256", "SOURCE"],
        &handlers.iter().flat_map(rows).collect::<Vec<_>>(),
    ));
    for handler in handlers {
        lines.push(String::new());
        lines.push(format!("{}: serves {}", handler.name, handler.routes.join(" ")));
        if (handler.queued, handler.refused) != (0, 0) {
            lines.push(format!(
                "       {} queued, {} refused since the queue was full or slow",
                handler.queued, handler.refused
            ));
        }
        lines.extend(handler.differs.iter().chain(&handler.guard).map(|note| format!("       {note}")));
        lines.extend(handler.last.iter().map(|receipt| format!("       last: {receipt}")));
    }
    lines.join("\n")
}

/// A handler's revisions: the one that serves, its canary, those that wait for their last requests, those that are kept.
fn rows(handler: &HandlerStatus) -> Vec<Vec<String>> {
    let mut rows = vec![row(&handler.name, "live", &handler.revision)];
    rows.extend(handler.canary.iter().map(|canary| row("", &format!("canary {}", canary.share), &canary.revision)));
    rows.extend(handler.draining.iter().map(|revision| row("", "draining", revision)));
    let kept = |revision: &RevisionStatus| if revision.withdrawn { "withdrawn" } else { "kept" };
    rows.extend(handler.kept.iter().map(|revision| row("", kept(revision), revision)));
    rows
}

fn row(handler: &str, state: &str, revision: &RevisionStatus) -> Vec<String> {
    let RevisionStatus { number, sha256, source, since: _, in_flight, requests, failures, withdrawn: _ } = revision;
    vec![
        word(handler),
        format!("r{number}"),
        state.to_owned(),
        in_flight.to_string(),
        requests.to_string(),
        failures.to_string(),
        sha256.chars().take(12).collect(),
        word(source),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::CanaryStatus;

    fn revision(number: u32, requests: u64) -> RevisionStatus {
        RevisionStatus {
            number,
            sha256: "41d3aabbccddeeff".to_owned(),
            source: "/srv/hello.wasm".to_owned(),
            since: "2026-01-01T12:00:00.000Z".to_owned(),
            in_flight: 2,
            requests,
            failures: 0,
            withdrawn: false,
        }
    }

    #[test]
    fn every_revision_has_a_line() {
        let handler = HandlerStatus {
            name: "hello".to_owned(),
            routes: vec!["/hello/*".to_owned()],
            revision: revision(8, 10432),
            canary: Some(CanaryStatus { share: "10%".to_owned(), revision: revision(9, 120) }),
            kept: vec![revision(7, 5)],
            draining: Vec::new(),
            in_flight: 4,
            requests: 10557,
            failures: 0,
            queued: 3,
            refused: 17,
            differs: Some("differs from astra.toml".to_owned()),
            guard: None,
            last: None,
        };
        let status = Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            started: "2026-01-01T12:00:00.000Z".to_owned(),
            listen: vec!["http://127.0.0.1:8080".to_owned()],
            config: Some("astra.toml".to_owned()),
            traffic: Traffic {
                connections: 5,
                accepted: 1200,
                in_flight: 4,
                queued: 3,
                events: [("queue_full".to_owned(), 17), ("http2_flood".to_owned(), 0)].into(),
            },
            handlers: vec![handler],
        };
        let expected = "\
astra-host 0.1.0, pid 4711, since 2026-01-01T12:00:00.000Z, http://127.0.0.1:8080, astra.toml
connections: 5 open, 1200 accepted; requests: 4 in flight, 3 queued
since the start: queue_full 17

HANDLER  REV  STATE       IN FLIGHT  REQUESTS  FAILURES  SHA256        SOURCE
hello    r8   live                2     10432         0  41d3aabbccdd  /srv/hello.wasm
         r9   canary 10%          2       120         0  41d3aabbccdd  /srv/hello.wasm
         r7   kept                2         5         0  41d3aabbccdd  /srv/hello.wasm

hello: serves /hello/*
       3 queued, 17 refused since the queue was full or slow
       differs from astra.toml";
        assert_eq!(describe(&status), expected);
    }
}
