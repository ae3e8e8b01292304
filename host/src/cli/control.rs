//! What the commands that operate a running host have in common: which host, how a receipt is shown, tables.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use super::say;
use crate::{
    control::client::{self, Client, ClientError, Question},
    log_line::Escaped,
    receipt::Receipt,
};

/// Which host is meant.
#[derive(Args)]
pub(super) struct Control {
    /// Control socket of the host [default: that of the one running host of this user]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Control {
    pub(super) fn client(&self) -> Result<Client, ClientError> {
        Client::find(self.control.as_deref())
    }
}

/// What is done to one handler, and answered with a receipt.
#[derive(Args)]
pub(super) struct Operation {
    /// The handler
    pub(super) handler: String,
    /// Return when it is done, rather than when the revision that is replaced has drained
    #[arg(long)]
    no_wait: bool,
    /// Print the receipt as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) control: Control,
}

impl Operation {
    /// The question to be asked.
    pub(super) fn question(&self, verb: &str, query: &[(&str, Option<&str>)]) -> Question {
        let no_wait = ("no_wait", self.no_wait.then_some("true"));
        Question::new(Method::POST, &["v1", "handlers", &self.handler, verb]).query(&[query, &[no_wait]].concat())
    }

    /// Shows a receipt: for people, or as it came.
    pub(super) fn say(&self, answer: &str) -> anyhow::Result<()> {
        if self.json {
            say(answer);
        } else {
            say_text(&client::parse::<Receipt>(answer)?.to_string());
        }
        Ok(())
    }

    /// Asks, and shows the receipt.
    pub(super) fn run(&self, verb: &str, query: &[(&str, Option<&str>)]) -> anyhow::Result<()> {
        self.say(&self.control.client()?.ask(self.question(verb, query))?)
    }
}

/// Says lines of which parts were chosen by others, who get no say over the terminal.
pub(super) fn say_text(text: &str) {
    for line in text.lines() {
        say(&Escaped::text(line).to_string());
    }
}

/// Rows under headings, each column as wide as its widest cell, numbers on the right. The last column ends where it ends.
pub(super) fn table(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let headings: Vec<String> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let width = |cell: &String| cell.chars().count();
    let widths: Vec<usize> = (0..headings.len())
        .map(|column| rows.iter().chain([&headings]).filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
        .collect();
    // With a unit of time, or unknown.
    let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit() || ".ms-".contains(c));
    let on_right: Vec<bool> = (0..headings.len())
        .map(|column| !rows.is_empty() && rows.iter().filter_map(|row| row.get(column)).all(is_number))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).zip(&on_right).map(|((cell, &width), &on_right)| {
            if on_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&headings].into_iter().chain(rows).map(line).collect()
}

/// A word that others have chosen, as a cell.
pub(super) fn word(text: &str) -> String {
    Escaped::word(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_end_together() {
        let rows = [["hello", "7", "/a"], ["a", "1200", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["NAME", "N", "PATH"], &rows), ["NAME      N  PATH", "hello     7  /a", "a      1200"]);
    }

    #[test]
    fn a_client_does_not_command_the_terminal() {
        assert_eq!(word("/a\u{1b}[2J b\n"), r"/a\u{1b}[2J\u{20}b\n");
    }
}
