//! The figures: rows for the table on stdout, for the JSON file and for the page beside it, and the bounds the project set itself.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contenders::Contenders;
use crate::tool::Tool;

pub(crate) struct Report {
    machine: Value,
    rows: Vec<Value>,
    /// The rows to be read by people.
    page: String,
    checks: Vec<Check>,
}

/// A bound from the project's goals, and what was measured.
struct Check {
    what: String,
    measured: f64,
    bound: f64,
    at_least: bool,
}

impl Check {
    fn met(&self) -> bool {
        if self.at_least { self.measured >= self.bound } else { self.measured <= self.bound }
    }

    fn verdict(&self) -> &str {
        if self.met() { "met" } else { "NOT MET" }
    }

    fn sign(&self) -> &str {
        if self.at_least { "≥" } else { "≤" }
    }
}

/// One figure of a contender: every round's value.
#[derive(Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<f64>,
}

impl Report {
    pub(crate) fn new(contenders: &Contenders) -> Result<Report> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let version = |tool: &Option<Tool>| tool.as_ref().map(|tool| tool.version.clone());
        let machine = json!({
            "cpu": cpu.map(|name| name.trim_start_matches([' ', '\t', ':'])),
            "cores": std::thread::available_parallelism()?.get(),
            "memory_gib": memory_gib(),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "wasmtime": version(&contenders.wasmtime),
            "node": version(&contenders.node),
            "workerd": version(&contenders.workerd),
            "commit": commit(),
            "started": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        });
        println!("{machine}");
        Ok(Report { machine, rows: Vec::new(), page: String::new(), checks: Vec::new() })
    }

    /// Adds and prints one row.
    pub(crate) fn row(&mut self, scenario: &str, setting: &str, contender: &str, command: &str, figures: &[Figure]) {
        let mut shown = format!("{scenario:<18} {setting:<9} {contender:<27}");
        let heading =
            format!("\n## {scenario}, {setting}: {contender}\n\n`{command}`\n\n| figure | median |\n|---|--:|\n");
        self.page.push_str(&heading);
        let mut values = serde_json::Map::new();
        for Figure { name, rounds } in figures {
            let median = median(rounds);
            shown.push_str(&format!("  {name} {}", number(median)));
            self.page.push_str(&format!("| {name} | {} |\n", number(median)));
            values.insert((*name).to_owned(), json!({ "median": median, "rounds": rounds }));
        }
        println!("{shown}");
        self.rows.push(json!({
            "scenario": scenario, "setting": setting, "contender": contender, "command": command, "figures": values,
        }));
    }

    pub(crate) fn at_least(&mut self, what: String, measured: f64, bound: f64) {
        self.check(Check { what, measured, bound, at_least: true });
    }

    pub(crate) fn at_most(&mut self, what: String, measured: f64, bound: f64) {
        self.check(Check { what, measured, bound, at_least: false });
    }

    fn check(&mut self, check: Check) {
        println!("  {}", shown(&check));
        self.checks.push(check);
    }

    pub(crate) fn note(&mut self, text: &str) {
        println!("  {text}");
        self.page.push_str(&format!("\n{text}\n"));
        self.rows.push(json!({ "note": text }));
    }

    /// Writes a picture, and puts it on the page, which is to be written beside it.
    pub(crate) fn picture(&mut self, path: &Path, title: &str, svg: &str) -> Result<()> {
        write(path, svg)?;
        let name = path.file_name().unwrap_or_default().display();
        self.page.push_str(&format!("\n![{title}]({name})\n"));
        Ok(())
    }

    /// Writes the JSON file, and the same to be read by people beside it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                let bound = if check.at_least { "at_least" } else { "at_most" };
                json!({ "what": check.what, "measured": check.measured, bound: check.bound, "met": check.met() })
            })
            .collect();
        let document = json!({ "machine": self.machine, "rows": self.rows, "checks": checks });
        write(path, &format!("{document:#}\n"))?;
        write(&path.with_extension("md"), &self.page())
    }

    /// A heading, the rows, the bounds.
    fn page(&self) -> String {
        let text = |key: &str| self.machine[key].as_str().unwrap_or("?");
        let mut page = format!(
            "# What was measured\n\nStarted {} from commit {}, on {} cores of {}, {} GiB, Linux {}.\n{}",
            text("started"),
            text("commit"),
            self.machine["cores"],
            text("cpu"),
            self.machine["memory_gib"],
            text("kernel"),
            self.page
        );
        page.push_str("\n## Goals\n\n| goal | measured | bound | |\n|---|--:|--:|---|\n");
        for check in &self.checks {
            let (measured, bound) = (number(check.measured), number(check.bound));
            page.push_str(&format!(
                "| {} | {measured} | {} {bound} | {} |\n",
                check.what,
                check.sign(),
                check.verdict()
            ));
        }
        page
    }

    pub(crate) fn print_checks(&self) {
        println!("\nGoals:");
        for check in &self.checks {
            println!("  {}", shown(check));
        }
    }
}

/// The folder too, if it is not there.
fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn shown(check: &Check) -> String {
    let (measured, bound) = (number(check.measured), number(check.bound));
    format!("{:<8} {}: {measured} ({} {bound})", check.verdict(), check.what, check.sign())
}

/// Of the machine, what the kernel can use.
fn memory_gib() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = meminfo.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some((kib + (1 << 19)) >> 20)
}

/// Of the sources that this program was built from, if they are as git knows them.
fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}
