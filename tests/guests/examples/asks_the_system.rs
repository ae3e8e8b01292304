//! Asks for what every guest has without a grant, and says what it got: clocks, random numbers, arguments, environment, standard streams.
//!
//! The host must have clocks that go, numbers that differ, and nothing of its own: no arguments, variables, directories, terminals, input.
#![cfg(target_family = "wasm")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "that is what is tried")]

use std::io::Read as _;

use test_guests::wasip2::{
    cli::{environment, stdin, terminal_stdin, terminal_stdout},
    clocks::{monotonic_clock, wall_clock},
    filesystem::preopens,
    http::types::{IncomingRequest, ResponseOutparam},
    random::{insecure, insecure_seed, random},
};

test_guests::export!(ask);

fn ask(_request: &IncomingRequest, responder: ResponseOutparam) {
    let before = monotonic_clock::now();
    monotonic_clock::subscribe_instant(before + 1_000_000).block();
    let mut text = format!("monotonic: {}\n", monotonic_clock::now() >= before + 1_000_000);
    text += &format!("resolution: {}\n", monotonic_clock::resolution() > 0 && wall_clock::resolution().nanoseconds > 0);
    let now = wall_clock::now();
    text += &format!("wall: {} {}\n", now.seconds, now.nanoseconds < 1_000_000_000);
    let (one, two) = (random::get_random_bytes(32), random::get_random_bytes(32));
    text +=
        &format!("random: {}\n", one.len() == 32 && one != two && random::get_random_u64() != random::get_random_u64());
    let (one, two) = (insecure::get_insecure_random_bytes(32), insecure::get_insecure_random_bytes(32));
    text += &format!("insecure: {}\n", one.len() == 32 && one != two);
    text += &format!("seed: {:x?}\n", insecure_seed::insecure_seed());
    text += &format!("arguments: {:?}\n", environment::get_arguments());
    text += &format!("environment: {:?}\n", environment::get_environment());
    text += &format!("directory: {:?}\n", environment::initial_cwd());
    text += &format!("preopens: {}\n", preopens::get_directories().len());
    text += &format!("input: {:?}\n", std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.kind()));
    text += &format!("input again: {}\n", stdin::get_stdin().blocking_read(1).is_err());
    let terminals = terminal_stdin::get_terminal_stdin().is_some() || terminal_stdout::get_terminal_stdout().is_some();
    text += &format!("terminal: {terminals}\n");
    println!("to the output");
    eprintln!("to the errors");
    test_guests::answer(responder, &text);
}
