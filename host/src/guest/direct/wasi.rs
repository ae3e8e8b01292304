//! `wasi:io`, `wasi:cli`, `wasi:clocks`, `wasi:random` and `wasi:config`.

use wasmtime::Result;
use wasmtime_wasi::{
    cli::WasiCliView as _,
    p2::{
        DynInputStream, DynOutputStream, DynPollable, StreamResult,
        bindings::{
            cli, clocks,
            io::error,
            random::{insecure, insecure_seed, random},
            sync::io::{poll, streams},
        },
    },
    random::WasiRandomView as _,
};

use super::{abi::Borrow, functions::Functions};
use crate::guest::{
    config_store::{self, ConfigError},
    heads::told,
    instance::State,
    module,
};

pub(super) fn add(functions: &mut Functions) {
    io(functions);
    streams_in(functions);
    streams_out(functions);
    command_line(functions);
    terminals(functions);
    time(functions);
    chance(functions);
    config(functions);
}

fn io(functions: &mut Functions) {
    let mut errors = functions.interface("wasi:io/error");
    errors.func("[method]error.to-debug-string", |state, (error,): (Borrow<error::Error>,)| {
        error::HostError::to_debug_string(&mut state.table, error.0)
    });
    errors.scalar("[resource-drop]error", |state, (error,)| error::HostError::drop(&mut state.table, error));

    let mut pollables = functions.interface("wasi:io/poll");
    pollables.func("poll", |state, (pollables,): (Vec<Borrow<DynPollable>>,)| {
        poll::Host::poll(&mut state.io(), pollables.into_iter().map(|pollable| pollable.0).collect())
    });
    pollables.scalar("[method]pollable.ready", |state, (pollable,): (Borrow<DynPollable>,)| {
        poll::HostPollable::ready(&mut state.io(), pollable.0)
    });
    pollables.scalar("[method]pollable.block", |state, (pollable,): (Borrow<DynPollable>,)| {
        poll::HostPollable::block(&mut state.io(), pollable.0)
    });
    pollables
        .scalar("[resource-drop]pollable", |state, (pollable,)| poll::HostPollable::drop(&mut state.io(), pollable));
}

type In = Borrow<DynInputStream>;
type Out = Borrow<DynOutputStream>;

/// A stream's error as its guest is told of it.
fn of_stream<T>(state: &mut State, result: StreamResult<T>) -> Result<Result<T, streams::StreamError>> {
    told(result, |error| streams::Host::convert_stream_error(&mut state.io(), error))
}

fn streams_in(functions: &mut Functions) {
    use streams::HostInputStream as Host;

    let mut streams = functions.interface("wasi:io/streams");
    streams.func("[method]input-stream.read", |state, (stream, length): (In, u64)| {
        let read = Host::read(&mut state.io(), stream.0, length);
        of_stream(state, read)
    });
    streams.func("[method]input-stream.blocking-read", |state, (stream, length): (In, u64)| {
        let read = Host::blocking_read(&mut state.io(), stream.0, length);
        of_stream(state, read)
    });
    streams.func("[method]input-stream.skip", |state, (stream, length): (In, u64)| {
        let skipped = Host::skip(&mut state.io(), stream.0, length);
        of_stream(state, skipped)
    });
    streams.func("[method]input-stream.blocking-skip", |state, (stream, length): (In, u64)| {
        let skipped = Host::blocking_skip(&mut state.io(), stream.0, length);
        of_stream(state, skipped)
    });
    streams
        .scalar("[method]input-stream.subscribe", |state, (stream,): (In,)| Host::subscribe(&mut state.io(), stream.0));
    streams.scalar("[resource-drop]input-stream", |state, (stream,)| Host::drop(&mut state.io(), stream));
}

fn streams_out(functions: &mut Functions) {
    use streams::HostOutputStream as Host;

    let mut streams = functions.interface("wasi:io/streams");
    streams.func("[method]output-stream.check-write", |state, (stream,): (Out,)| {
        let permit = Host::check_write(&mut state.io(), stream.0);
        of_stream(state, permit)
    });
    streams.func("[method]output-stream.write", |state, (stream, bytes): (Out, Vec<u8>)| {
        let written = Host::write(&mut state.io(), stream.0, bytes);
        of_stream(state, written)
    });
    streams.func("[method]output-stream.blocking-write-and-flush", |state, (stream, bytes): (Out, Vec<u8>)| {
        let written = Host::blocking_write_and_flush(&mut state.io(), stream.0, bytes);
        of_stream(state, written)
    });
    streams.func("[method]output-stream.flush", |state, (stream,): (Out,)| {
        let flushed = Host::flush(&mut state.io(), stream.0);
        of_stream(state, flushed)
    });
    streams.func("[method]output-stream.blocking-flush", |state, (stream,): (Out,)| {
        let flushed = Host::blocking_flush(&mut state.io(), stream.0);
        of_stream(state, flushed)
    });
    streams.scalar("[method]output-stream.subscribe", |state, (stream,): (Out,)| {
        Host::subscribe(&mut state.io(), stream.0)
    });
    streams.func("[method]output-stream.write-zeroes", |state, (stream, length): (Out, u64)| {
        let written = Host::write_zeroes(&mut state.io(), stream.0, length);
        of_stream(state, written)
    });
    streams.func("[method]output-stream.blocking-write-zeroes-and-flush", |state, (stream, length): (Out, u64)| {
        let written = Host::blocking_write_zeroes_and_flush(&mut state.io(), stream.0, length);
        of_stream(state, written)
    });
    streams.func("[method]output-stream.splice", |state, (to, from, length): (Out, In, u64)| {
        let moved = Host::splice(&mut state.io(), to.0, from.0, length);
        of_stream(state, moved)
    });
    streams.func("[method]output-stream.blocking-splice", |state, (to, from, length): (Out, In, u64)| {
        let moved = Host::blocking_splice(&mut state.io(), to.0, from.0, length);
        of_stream(state, moved)
    });
    streams.scalar("[resource-drop]output-stream", |state, (stream,)| Host::drop(&mut state.io(), stream));
}

fn command_line(functions: &mut Functions) {
    let mut environment = functions.interface("wasi:cli/environment");
    environment.func("get-environment", |state, (): ()| cli::environment::Host::get_environment(&mut state.cli()));
    environment.func("get-arguments", |state, (): ()| cli::environment::Host::get_arguments(&mut state.cli()));
    environment.func("initial-cwd", |state, (): ()| cli::environment::Host::initial_cwd(&mut state.cli()));

    let mut exit = functions.interface("wasi:cli/exit");
    exit.scalar("exit", |state, (status,)| cli::exit::Host::exit(&mut state.cli(), status));
    exit.scalar("exit-with-code", |state, (code,)| cli::exit::Host::exit_with_code(&mut state.cli(), code));

    let stdin = |state: &mut State, (): ()| cli::stdin::Host::get_stdin(&mut state.cli());
    functions.interface("wasi:cli/stdin").scalar("get-stdin", stdin);
    let stdout = |state: &mut State, (): ()| cli::stdout::Host::get_stdout(&mut state.cli());
    functions.interface("wasi:cli/stdout").scalar("get-stdout", stdout);
    let stderr = |state: &mut State, (): ()| cli::stderr::Host::get_stderr(&mut state.cli());
    functions.interface("wasi:cli/stderr").scalar("get-stderr", stderr);
}

fn terminals(functions: &mut Functions) {
    use cli::{terminal_input, terminal_output, terminal_stderr, terminal_stdin, terminal_stdout};

    functions
        .interface("wasi:cli/terminal-stdin")
        .func("get-terminal-stdin", |state, (): ()| terminal_stdin::Host::get_terminal_stdin(&mut state.cli()));
    functions
        .interface("wasi:cli/terminal-stdout")
        .func("get-terminal-stdout", |state, (): ()| terminal_stdout::Host::get_terminal_stdout(&mut state.cli()));
    functions
        .interface("wasi:cli/terminal-stderr")
        .func("get-terminal-stderr", |state, (): ()| terminal_stderr::Host::get_terminal_stderr(&mut state.cli()));
    functions.interface("wasi:cli/terminal-input").scalar("[resource-drop]terminal-input", |state, (terminal,)| {
        terminal_input::HostTerminalInput::drop(&mut state.cli(), terminal)
    });
    functions.interface("wasi:cli/terminal-output").scalar("[resource-drop]terminal-output", |state, (terminal,)| {
        terminal_output::HostTerminalOutput::drop(&mut state.cli(), terminal)
    });
}

fn time(functions: &mut Functions) {
    use clocks::{monotonic_clock::Host as Monotonic, wall_clock::Host as Wall};

    let mut monotonic = functions.interface("wasi:clocks/monotonic-clock");
    monotonic.scalar("now", |state, (): ()| Monotonic::now(&mut state.monotonic()));
    monotonic.scalar("resolution", |state, (): ()| Monotonic::resolution(&mut state.monotonic()));
    monotonic.scalar("subscribe-instant", |state, (when,)| Monotonic::subscribe_instant(&mut state.monotonic(), when));
    monotonic
        .scalar("subscribe-duration", |state, (time,)| Monotonic::subscribe_duration(&mut state.monotonic(), time));

    let mut wall = functions.interface("wasi:clocks/wall-clock");
    wall.func("now", |state, (): ()| Wall::now(&mut state.time()));
    wall.func("resolution", |state, (): ()| Wall::resolution(&mut state.time()));
}

fn chance(functions: &mut Functions) {
    let mut secure = functions.interface("wasi:random/random");
    secure.func("get-random-bytes", |state, (length,)| random::Host::get_random_bytes(state.random(), length));
    secure.scalar("get-random-u64", |state, (): ()| random::Host::get_random_u64(state.random()));

    let mut quick = functions.interface("wasi:random/insecure");
    quick.func("get-insecure-random-bytes", |state, (length,)| {
        insecure::Host::get_insecure_random_bytes(state.random(), length)
    });
    quick.scalar("get-insecure-random-u64", |state, (): ()| insecure::Host::get_insecure_random_u64(state.random()));
    functions
        .interface("wasi:random/insecure-seed")
        .func("insecure-seed", |state, (): ()| insecure_seed::Host::insecure_seed(state.random()));
}

/// Under the names of all its drafts.
fn config(functions: &mut Functions) {
    for name in config_store::NAMES {
        let mut store = functions.interface(module::interface(name));
        store.func("get", |state, (key,): (String,)| Ok(Ok::<_, ConfigError>(config_store::get(state.grants(), &key))));
        store.func("get-all", |state, (): ()| Ok(Ok::<_, ConfigError>(config_store::all(state.grants()))));
    }
}
