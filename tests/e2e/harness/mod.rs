//! What the tests share: a host in a process of its own ([`host`]), the guests it serves ([`guests`], [`toolchains`]), builds that last as
//! long as a test wants ([`held_build`]), clients for both versions of HTTP, servers for guests to ask ([`origin`]), and directories that
//! go away.
//!
//! Every wait ends after [`PATIENCE`]: a hang fails a test, it does not hang the suite.

#[path = "../../../host/server/tests/support/client.rs"]
#[allow(dead_code, reason = "the tests of astra-server use more of it")]
mod client;
mod guests;
mod held_build;
mod host;
pub(crate) mod hostility;
mod http2;
pub(crate) mod origin;
mod scratch;
mod toolchains;
mod versions;

use std::{
    io::{self, Write as _},
    sync::RwLock,
    time::Duration,
};

pub(crate) use client::{Answer, Client, field};
pub(crate) use guests::{guest, root, target_dir};
pub(crate) use held_build::HeldBuild;
pub(crate) use host::{Ended, Host, Setup, all_waiting, waiting};
pub(crate) use http2::Http2;
pub(crate) use scratch::Scratch;
pub(crate) use toolchains::foreign_guest;
pub(crate) use versions::{version, version_bytes, version_file};

/// How long a test waits for something that should happen soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a host that may have 512 descriptors: three sixteenths of them are for guests, and half of those for the guests of one handler.
pub(crate) const FEW_DESCRIPTORS: &str = r#"ulimit -n 512; exec "$@""#;

/// Held by each test with a host inside of this process, alone by the one that counts the process's threads.
pub(crate) static HOSTS_HERE: RwLock<()> = RwLock::new(());

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    One,
    Two,
}

/// Both, for tests that must pass over either.
pub(crate) const BOTH: [Http; 2] = [Http::One, Http::Two];

/// Bytes that differ from place to place, so that lost or swapped pieces show.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

/// Says what is not tested here, past the capture of tests' output: the test passes.
pub(crate) fn skipped(what: &str, reason: &str) {
    writeln!(io::stderr(), "SKIPPED: {what} is not tested: {reason}").expect("stderr");
}
