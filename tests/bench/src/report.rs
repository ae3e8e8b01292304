//! The figures: rows for the table on stdout and for the JSON file, and the bounds the project set itself.
#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::contenders::Contenders;

pub(crate) struct Report {
    machine: Value,
    rows: Vec<Value>,
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
}

/// One figure of a contender: every round's value.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<f64>,
}

impl Report {
    pub(crate) fn new(contenders: &Contenders) -> Result<Report> {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let machine = json!({
            "cpu": cpu.map(|name| name.trim_start_matches([' ', '\t', ':'])),
            "cores": std::thread::available_parallelism()?.get(),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "wasmtime": contenders.wasmtime_version,
        });
        println!("{machine}");
        Ok(Report { machine, rows: Vec::new(), checks: Vec::new() })
    }

    /// Adds and prints one row.
    pub(crate) fn row(&mut self, scenario: &str, setting: &str, contender: &str, command: &str, figures: &[Figure]) {
        let mut shown = format!("{scenario:<9} {setting:<9} {contender:<24}");
        let mut values = serde_json::Map::new();
        for Figure { name, rounds } in figures {
            let median = median(rounds);
            shown.push_str(&format!("  {name} {}", number(median)));
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
        self.rows.push(json!({ "note": text }));
    }

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
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, format!("{document:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn print_checks(&self) {
        println!("\nGoals:");
        for check in &self.checks {
            println!("  {}", shown(check));
        }
    }
}

fn shown(check: &Check) -> String {
    let verdict = if check.met() { "met" } else { "NOT MET" };
    let sign = if check.at_least { "≥" } else { "≤" };
    format!("{verdict:<8} {}: {} ({sign} {})", check.what, number(check.measured), number(check.bound))
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
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
