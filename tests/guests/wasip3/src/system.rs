//! Everything else that a guest of WASI 0.3 finds around it: environment, arguments, clocks, random numbers, its output, its configuration.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests see there what the standard library makes of it")]

use wasip3::{
    cli, clocks,
    random::{insecure, insecure_seed, random},
    wit_stream,
};

pub(crate) async fn report(what: &str, query: &str) -> String {
    match what {
        "environment" => {
            let all = cli::environment::get_environment().into_iter().map(|(name, value)| format!("{name}={value}\n"));
            all.collect()
        }
        "arguments" => format!("{:?} {:?}", cli::environment::get_arguments(), cli::environment::get_initial_cwd()),
        "config" => format!("{:?} {:?}", guest_sdk::config::var(query), guest_sdk::config::all()),
        "input" => {
            let (input, ended) = cli::stdin::read_via_stream();
            format!("{} bytes, {:?}", input.collect().await.len(), ended.await)
        }
        "prints" => {
            print("of 0.3\nlast of 0.3".to_owned()).await;
            complain("complaint of 0.3\n".to_owned()).await;
            println!("of std");
            eprintln!("complaint of std");
            "printed".to_owned()
        }
        "clocks" => told_times().await,
        "random" => {
            let length = query.parse().unwrap_or(0);
            let (bytes, insecure) = (random::get_random_bytes(length), insecure::get_insecure_random_bytes(length));
            let differ = bytes != random::get_random_bytes(length)
                && random::get_random_u64() != random::get_random_u64()
                && insecure::get_insecure_random_u64() != insecure::get_insecure_random_u64()
                && insecure_seed::get_insecure_seed() != (0, 0);
            format!("{} and {} bytes, differ: {differ}", bytes.len(), insecure.len())
        }
        _ => "unknown".to_owned(),
    }
}

async fn told_times() -> String {
    let (before, system) = (clocks::monotonic_clock::now(), clocks::system_clock::now());
    clocks::monotonic_clock::wait_until(before + 20_000_000).await;
    let waited = clocks::monotonic_clock::now() >= before + 20_000_000;
    clocks::monotonic_clock::wait_until(before).await;
    let resolutions = (clocks::monotonic_clock::get_resolution(), clocks::system_clock::get_resolution());
    format!("{} {waited} {}", system.seconds, resolutions.0 > 0 && resolutions.1 > 0)
}

/// Prints through `wasi:cli/stdout` of 0.3.
pub(crate) async fn print(text: String) {
    let (mut writer, reader) = wit_stream::new();
    let printed = cli::stdout::write_via_stream(reader);
    writer.write_all(text.into_bytes()).await;
    drop(writer);
    printed.await.expect("it is taken");
}

async fn complain(text: String) {
    let (mut writer, reader) = wit_stream::new();
    let printed = cli::stderr::write_via_stream(reader);
    writer.write_all(text.into_bytes()).await;
    drop(writer);
    printed.await.expect("it is taken");
}

pub(crate) fn exit(status: &str) {
    cli::exit::exit_with_code(status.parse().unwrap_or(1));
}
