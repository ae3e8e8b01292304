//! The other kinds of guest, other languages, and guests that ask others.

use anyhow::Result;

use super::{NO_WASMTIME, Turns};
use crate::contenders::Contenders;
use crate::report::Report;
use crate::server::{Contender, Server};
use crate::{Options, Pin};

/// A hello of WASI 0.3; the peer too makes a fresh instance for each request.
pub(crate) fn wasip3(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let mut all = vec![contenders.astra_host("astra-host", "wasip3_app", &[])];
    let fresh = ["-S", "p3", "-W", "component-model-async", "--max-instance-reuse-count", "1"];
    all.extend(contenders.wasmtime("wasmtime without reuse", "wasip3_app", &fresh));
    compare("wasip3", "/", &all, 2.0, options, report)
}

/// A hello in C that is a CGI program, beside the hello of WASI 0.2.
pub(crate) fn cgi(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let Some(program) = contenders.foreign("c") else {
        report.note(&not_built("c"));
        return Ok(());
    };
    let all = [
        contenders.astra_host("astra-host, CGI", &program, &[]),
        contenders.astra_host("astra-host, WASI 0.2", "hello", &[]),
    ];
    compare("cgi", "/", &all, 0.5, options, report)
}

/// Interpreters as guests.
pub(crate) fn languages(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    for language in ["python", "javascript"] {
        let Some(module) = contenders.foreign(language) else {
            report.note(&not_built(language));
            continue;
        };
        let mut all = vec![contenders.astra_host("astra-host", &module, &[])];
        all.extend(contenders.wasmtime_default(&module));
        compare(language, "/", &all, 1.5, options, report)?;
    }
    Ok(())
}

/// Each request asks a native server next to it.
pub(crate) fn fetch(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.example_guest("calls_out").display().to_string();
    let [upstream, ..] = contenders.native();
    let upstream = Server::start(&upstream, Pin::Off)?;
    let mut all = vec![contenders.astra_host("astra-host", &guest, &["--outbound", "http://127.0.0.1:*"])];
    all.extend(contenders.wasmtime_default(&guest));
    compare("fetch", &format!("/?http://{}/", upstream.addr), &all, 3.0, options, report)
}

/// A thousand requests at a time whose upstream takes half a second to answer.
pub(crate) fn upstreams(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.example_guest("calls_out").display().to_string();
    let slow = contenders.astra_host("upstream", "slow", &["--max-workers", "1100"]);
    let upstream = Server::start(&slow, Pin::Off)?;
    let all =
        [contenders.astra_host("astra-host", &guest, &["--outbound", "http://127.0.0.1:*", "--max-workers", "1100"])];
    for pin in options.pins() {
        let path = format!("/?http://{}/?ms=500", upstream.addr);
        let turns = Turns { scenario: "upstreams", path: &path, connections: 1000, pin };
        let ours = turns.take(&all, options, report)?[0];
        report.at_most(format!("upstreams, {}: errors", pin.name()), ours.errors, 0.0);
    }
    Ok(())
}

/// The first contender has at least `bound` times the rate of the second.
fn compare(
    scenario: &'static str,
    path: &str,
    all: &[Contender],
    bound: f64,
    options: &Options,
    report: &mut Report,
) -> Result<()> {
    for pin in options.pins() {
        let results = Turns { scenario, path, connections: 32, pin }.take(all, options, report)?;
        match results[..] {
            [ours, theirs] => {
                let what = format!("{scenario}, {}: {} / {}", pin.name(), all[0].name, all[1].name);
                report.at_least(what, ours.rate / theirs.rate, bound);
                report.at_most(format!("{scenario}, {}: errors", pin.name()), ours.errors, 0.0);
            }
            _ => report.note(NO_WASMTIME),
        }
    }
    Ok(())
}

fn not_built(example: &str) -> String {
    format!(
        "not measured: examples/{example} has not been built (`cargo test -p astra-host --test e2e languages` does)"
    )
}
