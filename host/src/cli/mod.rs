//! The command line: one file per command. What clap makes of the arguments ends here; what goes on is plain values.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage. An error is printed once, with everything that led to it, and ends with what
//! to do about it.

mod canary;
mod check;
mod compile;
mod completions;
mod control;
mod dev;
mod events;
mod inspect;
mod kill;
mod manual;
mod new;
mod ps;
mod reload;
mod rollback;
mod run;
mod signals;
mod spinner;
mod status;
mod stop;
mod swap;
mod systemd;
mod upgrade;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand, error::ErrorKind};
use rustix::io::Errno;

use crate::{
    config::{UNIX, ValueError},
    guest::{GrantError, LoadError},
    host_error::HostError,
};

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Serves HTTP with WebAssembly guests: a fresh sandbox for every request.
#[derive(Parser)]
#[command(name = "astra-host", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Dev(Box<dev::Dev>),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Compile(compile::Compile),
    New(new::New),
    Completions(completions::Completions),
    Manual(manual::Manual),
    Swap(swap::Swap),
    Promote(canary::Promote),
    Abort(canary::Abort),
    Rollback(rollback::Rollback),
    Status(status::StatusCommand),
    Ps(ps::Ps),
    Kill(kill::Kill),
    Events(events::Events),
    Reload(reload::Reload),
    Stop(stop::Stop),
    Upgrade(upgrade::Upgrade),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let done = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::Dev(dev) => dev.execute(),
        Command::Check(check) => check.execute(),
        Command::Inspect(inspect) => inspect.execute(),
        Command::Compile(compile) => compile.execute(),
        Command::New(new) => new.execute(),
        Command::Completions(completions) => completions.execute(),
        Command::Manual(manual) => manual.execute(),
        Command::Swap(swap) => swap.execute(),
        Command::Promote(promote) => promote.execute(),
        Command::Abort(abort) => abort.execute(),
        Command::Rollback(rollback) => rollback.execute(),
        Command::Status(status) => status.execute(),
        Command::Ps(ps) => ps.execute(),
        Command::Kill(kill) => kill.execute(),
        Command::Events(events) => events.execute(),
        Command::Reload(reload) => reload.execute(),
        Command::Stop(stop) => stop.execute(),
        Command::Upgrade(upgrade) => upgrade.execute(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {}\n", explain(&error)));
            ExitCode::from(if error.is::<ValueError>() { WRONG_USAGE } else { FAILED })
        }
    }
}

/// Help and version go to the standard output and are no failure; anything else clap says is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(WRONG_USAGE)
        }
        _ => {
            complain(&error.render().to_string());
            ExitCode::from(WRONG_USAGE)
        }
    }
}

fn complain(message: &str) {
    let _ = write!(io::stderr(), "astra-host: {message}");
}

/// The error with all its causes on one line, and what to do on the next.
fn explain(error: &anyhow::Error) -> String {
    match advice(error) {
        Some(advice) => format!("{error:#}\n  {advice}"),
        None => format!("{error:#}"),
    }
}

/// What a person can do about it, where the error does not say it itself.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    if error.chain().filter_map(|cause| cause.downcast_ref()).any(is_out_of_files) {
        return Some("allow the process more open files: `ulimit -n`, or `LimitNOFILE=` in a unit of systemd's");
    }
    match error.downcast_ref()? {
        HostError::Listen { address, source } if address.starts_with(UNIX) => Some(match source.kind() {
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another path",
            _ => {
                "choose a path in a directory that exists and may be written, such as `--listen unix:/run/app/app.sock`"
            }
        }),
        HostError::Listen { source, .. } => Some(match source.kind() {
            io::ErrorKind::AddrInUse => {
                "stop what listens there, or choose another port: `--listen 127.0.0.1:0` takes a free one"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: choose a higher one, such as `--listen 127.0.0.1:8080`"
            }
            io::ErrorKind::AddrNotAvailable => {
                "give an address of this machine; `--listen 0.0.0.0:8080` takes all of them"
            }
            _ => "give an address of this machine, such as `--listen 127.0.0.1:8080`",
        }),
        HostError::NoCertificate { .. } => {
            Some("give its files, `--tls-cert FILE --tls-key FILE`, or `tls` in the configuration file")
        }
        HostError::Grant(GrantError::Open { .. } | GrantError::NotADirectory { .. }) => {
            Some("give a directory that exists and may be read: `--dir HOST[::GUEST][:rw]`")
        }
        HostError::Load(LoadError::Read { .. }) => Some("give a .wasm file, or the directory of a Cargo package"),
        _ => None,
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Prints a line of result to the standard output; that nobody reads it is no reason to stop.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn an_error_shows_its_causes_and_ends_with_what_to_do() {
        let source = io::Error::new(io::ErrorKind::AddrInUse, "address in use");
        let error = anyhow::Error::from(HostError::Listen { address: "127.0.0.1:80".to_owned(), source });
        let text = explain(&error);
        assert!(text.starts_with("cannot listen on `127.0.0.1:80`: address in use\n"), "{text}");
        assert!(text.ends_with("takes a free one"), "{text}");
        let source = || io::Error::from(Errno::MFILE);
        for error in [
            HostError::Listen { address: "127.0.0.1:80".to_owned(), source: source() },
            HostError::Listen { address: "unix:/run/app.sock".to_owned(), source: source() },
            HostError::Serve(source()),
        ] {
            let text = explain(&error.into());
            assert!(text.contains("`ulimit -n`"), "{text}");
        }
    }
}
