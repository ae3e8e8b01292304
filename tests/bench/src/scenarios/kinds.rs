//! The other kinds of guest, other languages, and guests that ask others.

use anyhow::Result;

use super::turns::{Peer, Turns, compare};
use crate::contenders::Contenders;
use crate::load::get;
use crate::report::Report;
use crate::server::Server;
use crate::{Options, Pin};

/// A hello of WASI 0.3; the peer too makes a fresh instance for each request.
pub(crate) fn wasip3(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let ours = contenders.astra_host("astra-host", "wasip3_app", &[]);
    let fresh = ["-S", "p3", "-W", "component-model-async", "--max-instance-reuse-count", "1"];
    let theirs = contenders.wasmtime("wasmtime without reuse", "wasip3_app", &fresh);
    compare("wasip3", get("/", 32), &ours, &[Peer::of(theirs, Some(2.0), Some(2.0))], options, report)
}

/// A hello in C that is a CGI program, beside the hello of WASI 0.2.
pub(crate) fn cgi(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let Some(program) = contenders.foreign("c") else {
        report.note(&not_built("c"));
        return Ok(());
    };
    let cgi = contenders.astra_host("astra-host, CGI", &program, &[]);
    let component = contenders.astra_host("astra-host, WASI 0.2", "hello", &[]);
    compare("cgi", get("/", 32), &cgi, &[Peer::of(Some(component), Some(0.5), Some(0.5))], options, report)
}

/// A hello with the stack that other SDKs link: what a guest has used of it must be made fresh, or found to be fresh.
pub(crate) fn stack(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.hello_with_a_large_stack().display().to_string();
    let ours = contenders.astra_host("astra-host", &guest, &[]);
    compare(
        "stack",
        get("/", 32),
        &ours,
        &[Peer::of(contenders.wasmtime_best(&guest), Some(2.5), None)],
        options,
        report,
    )
}

/// Interpreters as guests.
pub(crate) fn languages(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    for language in ["python", "javascript"] {
        let Some(module) = contenders.foreign(language) else {
            report.note(&not_built(language));
            continue;
        };
        let ours = contenders.astra_host("astra-host", &module, &[]);
        let best = Peer::of(contenders.wasmtime_best(&module), Some(2.0), Some(2.0));
        let default = Peer::of(contenders.wasmtime_default(&module), None, None);
        compare(language, get("/", 32), &ours, &[best, default], options, report)?;
    }
    Ok(())
}

/// Each request asks a native server next to it.
pub(crate) fn fetch(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let guest = contenders.example_guest("calls_out").display().to_string();
    let [upstream, ..] = contenders.native();
    let upstream = Server::start(&upstream, Pin::Off)?;
    let ours = contenders.astra_host("astra-host", &guest, &["--outbound", "http://127.0.0.1:*"]);
    let theirs = Peer::of(contenders.wasmtime_default(&guest), Some(3.0), Some(3.0));
    let path = format!("/?http://{}/", upstream.addr);
    compare("fetch", get(&path, 32), &ours, &[theirs], options, report)
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
        let turns = Turns { scenario: "upstreams", asked: get(&path, 1000), pin };
        let ours = turns.take(&all, options, report)?[0];
        report.at_most(format!("upstreams, {}: errors", pin.name()), ours.errors, 0.0);
    }
    Ok(())
}

fn not_built(example: &str) -> String {
    format!(
        "not measured: examples/{example} has not been built (`cargo test -p astra-host --test e2e languages` does)"
    )
}
