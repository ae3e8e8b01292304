//! What the access log of a run says: how often each request is in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::http1::id_number;

#[derive(Default)]
pub(super) struct Logged {
    times: HashMap<u64, u8>,
    pub(super) lines: u64,
    /// Lines that are no JSON.
    pub(super) broken: u64,
    /// Times that the host said that it had to drop lines.
    pub(super) dropped: u64,
    /// What the host says is an error of its own: a panic, say.
    pub(super) errors: Vec<String>,
}

impl Logged {
    pub(super) fn times(&self, id: u64) -> u8 {
        self.times.get(&id).copied().unwrap_or_default()
    }

    /// Requests with more lines than one.
    pub(super) fn twice(&self) -> usize {
        self.times.values().filter(|times| **times > 1).count()
    }
}

pub(super) fn read(log: &Path) -> Result<Logged> {
    let mut logged = Logged::default();
    for line in BufReader::new(File::open(log)?).lines() {
        let line = line?;
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            logged.broken += 1;
            continue;
        };
        match value["kind"].as_str() {
            Some("access") => {
                logged.lines += 1;
                if let Some(id) = value["id"].as_str().and_then(id_number) {
                    let times = logged.times.entry(id).or_default();
                    *times = times.saturating_add(1);
                }
            }
            Some("host") if value["message"].as_str().is_some_and(|text| text.contains("log lines dropped")) => {
                logged.dropped += 1;
            }
            Some("host") if value["level"] == "error" => logged.errors.push(line),
            _ => {}
        }
    }
    Ok(logged)
}
