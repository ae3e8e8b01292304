//! The `astra-host` command: everything it does is in the library next door.

fn main() -> std::process::ExitCode {
    astra_host::cli::main()
}
