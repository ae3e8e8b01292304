//! Load: `wrk` as a child process, which asks for one thing on as many connections as it is told; what it prints as numbers.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Pin;
use crate::server::Server;
use crate::there_and_back::there_and_back;

/// Posts a body, of as many bytes as its argument says.
const POST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/post.lua");

/// What is asked for, and on how many connections that are kept.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    path: &'a str,
    /// Bytes of a body that is posted and comes back; none is GET.
    body: Option<u64>,
    pub(crate) connections: u32,
}

pub(crate) fn get(path: &str, connections: u32) -> Asked<'_> {
    Asked { path, body: None, connections }
}

/// The answer is the body.
pub(crate) fn echo<'a>(body: u64, connections: u32) -> Asked<'a> {
    Asked { path: "/", body: Some(body), connections }
}

impl Asked<'_> {
    /// Asks once, and looks at the answer, at which `wrk` does not.
    pub(crate) fn once(&self, server: &Server) -> Result<()> {
        match self.body {
            Some(body) => there_and_back(server.addr, body),
            None => server.ask(self.path).map(drop),
        }
    }
}

/// What one run of `wrk` saw.
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    pub(crate) p99_ms: f64,
    /// Socket errors, time-outs, and answers that are neither 2xx nor 3xx.
    pub(crate) errors: u64,
}

pub(crate) fn check_wrk() -> Result<()> {
    Command::new("wrk")
        .arg("--version")
        .output()
        .context("cannot run `wrk`: install it (Debian and Ubuntu: `apt install wrk`; macOS: `brew install wrk`)")?;
    Ok(())
}

pub(crate) fn run(server: &Server, asked: Asked<'_>, seconds: u32, pin: Pin) -> Result<Load> {
    let (mut command, threads) = match pin {
        Pin::On => {
            let mut taskset = Command::new("taskset");
            taskset.args(["-c", "1", "wrk"]);
            (taskset, "1")
        }
        Pin::Off => (Command::new("wrk"), "2"),
    };
    command
        .args(["--latency", "--timeout", "10s", "-t", threads])
        .args(["-c", &asked.connections.to_string(), "-d", &format!("{seconds}s")])
        .arg(format!("{}://{}{}", if server.is_tls { "https" } else { "http" }, server.addr, asked.path));
    if let Some(body) = asked.body {
        command.args(["-s", POST, "--", &body.to_string()]);
    }
    let output = command.output().context("cannot run `wrk`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    let load = parse(&text).with_context(|| format!("wrk printed something else than expected:\n{text}"))?;
    ensure!(load.requests_per_second > 0.0, "no answer within {seconds} s: is the machine busy with something else?");
    Ok(load)
}

fn parse(text: &str) -> Option<Load> {
    let after = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let socket_errors: u64 = after("Socket errors:")
        .map(|counts| counts.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok()).sum())
        .unwrap_or(0);
    let refused: u64 = after("Non-2xx or 3xx responses:").and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(Load {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p99_ms: milliseconds(after("99%")?)?,
        errors: socket_errors + refused,
    })
}

/// `420.00us`, `1.23ms`, `1.02s`, `1.00m`
fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Some(number.parse::<f64>().ok()? * factor);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_wrk_prints_is_understood() {
        let load = parse(
            "Running 1s test @ http://127.0.0.1:1/\n  Latency Distribution\n     50%  160.00us\n     99%    1.42ms\n  \
             9 requests in 1.00s, 1.00MB read\n  Socket errors: connect 0, read 2, write 0, timeout 3\n  \
             Non-2xx or 3xx responses: 7\nRequests/sec: 101892.97\nTransfer/sec: 9.00MB\n",
        )
        .expect("understood");
        assert_eq!((load.requests_per_second, load.p99_ms, load.errors), (101_892.97, 1.42, 12));
    }
}
