//! The machine's clock is set while a host serves: times in the log follow it, and nothing else does. The host runs under libfaketime, which
//! fakes the clock that people read and leaves the other one alone.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime},
};

use rustix::process::Signal;

use crate::harness::{Client, Host, Scratch, Setup, guest, skipped};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Where distributions have it.
fn library() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let dirs = dirs.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file())
}

/// Sets the host's clock, in the way of its `date -s`.
fn set(scratch: &Scratch, offset: &str) {
    let new = scratch.file("clock.new", format!("{offset}\n"));
    fs::rename(new, scratch.join("clock")).expect("ours");
}

/// The time of a line in the log.
fn time(line: &serde_json::Value) -> SystemTime {
    humantime::parse_rfc3339(line["time"].as_str().expect("a text")).expect("a time")
}

#[test]
fn a_clock_that_is_set_ahead_and_back_changes_the_times_in_the_log_and_nothing_else() {
    let Some(library) = library() else {
        return skipped("a clock that is set", "libfaketime is not installed (Debian: `faketime`)");
    };
    let scratch = Scratch::short();
    set(&scratch, "+0");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a name");
    scratch.file("cert.pem", signed.cert.pem());
    scratch.file("key.pem", signed.signing_key.serialize_pem());
    let module = guest("sse");
    let text = format!(
        "[server]\nlisten = ['127.0.0.1:0', 'https://127.0.0.1:0']\ntls = {{ cert = 'cert.pem', key = 'key.pem' }}\nmax_connection_age = \
         '1h'\n[[handler]]\nname = 'sse'\nmodule = {module:?}\nlimits = {{ stream_deadline = '1h', cpu = '1h' }}\n"
    );
    let setup = Setup::run(scratch.file("astra.toml", text))
        .no_listen()
        .arg("--no-state")
        .flag("--control", scratch.join("control"));
    let setup = setup.environment("LD_PRELOAD", &library).environment("FAKETIME_TIMESTAMP_FILE", scratch.join("clock"));
    let setup = setup.environment("FAKETIME_NO_CACHE", "1").environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut host = setup.start();
    let tls = host.stdout_with("listening on https://").replace("listening on ", "");
    // Without end, and with events that a deadline would cut.
    let stream = |host: &Host| {
        let mut client = host.connect();
        client.ask("/?ms=10&count=100000000");
        assert_eq!(client.head().status, 200);
        client
    };
    let goes_on = |client: &mut Client| {
        for _ in 0..3 {
            client.chunk().expect("it is not cut").expect("it goes on");
        }
    };

    let (mut kept, mut streaming) = (host.connect(), stream(&host));
    for (offset, whence) in
        [("+1d", Some("set ahead (or the machine slept) by 1day")), ("+0", Some("set back by 1day")), ("-1d", None)]
    {
        let mut slow = host.connect();
        slow.send("GET /?count=1 HTTP/1.1\r\n");
        goes_on(&mut streaming);
        set(&scratch, offset);
        if let Some(whence) = whence {
            host.stderr_with(whence);
        }
        goes_on(&mut streaming);
        slow.send("host: test\r\n\r\n");
        assert_eq!(slow.answer().status, 200);
        let answer = kept.get("/?count=1");
        let now = SystemTime::now();
        let expected = match offset {
            "+1d" => now + DAY,
            "-1d" => now - DAY,
            _ => now,
        };
        let logged = time(&host.access(&answer));
        let apart = logged.duration_since(expected).unwrap_or_else(|early| early.duration());
        assert!(apart < DAY / 2, "{offset}: {} is logged", humantime::format_rfc3339(logged));
        let mut curl = Command::new("curl");
        let answer = curl.args(["-sSk", "--fail", "--max-time", "30"]).arg(format!("{tls}/?count=1")).output();
        let answer = answer.expect("curl is there");
        assert!(answer.stdout.starts_with(b"id: 1\n"), "{answer:?}");
    }

    drop(kept);
    host.signal(Signal::TERM);
    host.stderr_with("finishing what runs, for at most 30s");
    for offset in ["+1d", "-1d"] {
        set(&scratch, offset);
        goes_on(&mut streaming);
    }
    drop(streaming);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("requests were cut"), "{}", ended.stderr);
}
