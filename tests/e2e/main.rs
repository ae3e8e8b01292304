//! The real binary, over real sockets: what a user of `astra-host` can see.
//!
//! One file per subject, one sentence per test. [`harness`] starts hosts and builds guests.
#![allow(clippy::print_stderr, reason = "tests that fail show what the host has said")]

mod harness;

mod bodies;
mod bulkheads;
mod cgi;
mod clients;
mod clock;
mod commands;
mod compiling;
mod configuration;
mod conformance;
mod conformance_outgoing;
mod core_modules;
mod direct;
mod embedding;
mod examples;
mod failures;
mod faults;
mod grants;
mod heads;
mod hostile_guests;
mod isolation;
mod languages;
mod limits;
mod logs;
mod network;
mod operating;
mod outgoing;
mod packages;
mod real_clients;
mod refusals;
mod shutdown;
mod start;
mod swaps;
mod systemd;
mod terminal;
mod tls;
mod unix;
mod upgrade;
mod visibility;
mod wasi_versions;
mod wasip3;
mod wasip3_bodies;
mod wasip3_cgi;
mod wasip3_grants;
mod wasip3_heads;
mod wasip3_outgoing;
mod wasip3_uploads;
