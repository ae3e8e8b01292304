//! What may fail around a host: its log, its disks, its cache, its descriptors. It goes on, and says so where anybody can hear it.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use rustix::process::Signal;

use crate::harness::{Client, Host, Http, Scratch, Setup, guest, version, version_bytes, version_file};

/// Asserts that it serves, and ends as it should.
fn serves_and_ends(mut host: Host) {
    for _ in 0..3 {
        assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
    }
    host.signal(Signal::TERM);
    assert_eq!(host.ended().code, Some(0));
}

#[test]
fn a_log_whose_reader_has_gone_holds_up_nobody() {
    let (reader, writer) = io::pipe().expect("a pipe");
    let host = Host::with("hello").stderr(writer).start();
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!");
    drop(reader);
    serves_and_ends(host);
}

#[test]
#[cfg(target_os = "linux")]
fn a_log_on_a_full_disk_holds_up_nobody() {
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    serves_and_ends(Host::with("hello").stderr(full).start());
}

#[test]
fn a_log_that_may_not_grow_any_more_holds_up_nobody() {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let setup = Host::with("stdout_flood").stderr(File::create(&log).expect("ours")).through_shell(LIMITED);
    let mut host = setup.start();
    let length = || fs::metadata(&log).expect("is there").len();
    for _ in 0..100 {
        assert_eq!(host.get(Http::One, "/?lines=10000").text(), "flooded\n");
    }
    host.signal(Signal::TERM);
    assert_eq!((host.ended().code, length()), (Some(0), 1 << 20));
}

/// Runs a host that may write files of at most 1 MiB. In POSIX a unit is 512 bytes, in bash 1024.
const LIMITED: &str = r#"if [ -n "$BASH_VERSION" ]; then ulimit -f 1024; else ulimit -f 2048; fi; exec "$@""#;

#[test]
fn a_swap_that_finds_the_disk_full_is_refused_and_what_serves_goes_on() {
    let scratch = Scratch::short();
    let one = version_file(&scratch, 1);
    // A custom section of 2 MiB and its name, which is empty.
    let padding = [&[0, 0x81, 0x80, 0x80, 1, 0][..], &vec![0; 2 << 20]].concat();
    let two = scratch.file("two.wasm", [version_bytes(2), padding].concat());
    let control = scratch.join("control");
    let setup = Setup::run(one).flag("--control", &control).flag("--state", scratch.join("state"));
    let host = setup.through_shell(LIMITED).start();
    let swap = || Setup::bare().arg("swap").arg("version-1").arg(&two).flag("--control", &control).end();
    swap().expect_complaint(1, &["cannot be kept in `", "state/uploads`", "too large"]);
    assert_eq!(host.get(Http::One, "/").text(), version(1));
    let left = fs::read_dir(scratch.join("state/uploads")).expect("is there").count();
    assert_eq!(left, 0, "nothing is left of it");
}

#[test]
fn a_cache_that_cannot_be_written_to_costs_compiling_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let ours = scratch.file("cache/astra-host/modules", "in the place of a directory").with_file_name("");
    fs::set_permissions(&ours, fs::Permissions::from_mode(0o700)).expect("ours");
    for _ in 0..2 {
        let host = Host::with("hello").environment("XDG_CACHE_HOME", scratch.join("cache")).start();
        let line = host.stdout_with("hello.wasm");
        assert!(!line.contains("cache"), "{line}");
        serves_and_ends(host);
    }
}

#[test]
fn a_damaged_cache_is_not_believed() {
    let scratch = Scratch::new();
    let start = || Host::with("hello").environment("XDG_CACHE_HOME", scratch.join("cache")).start();
    let line = |host: &Host| host.stdout_with("hello.wasm");
    serves_and_ends(start());
    let host = start();
    assert!(line(&host).contains("cache"), "{}", line(&host));
    drop(host);
    let damages: [&dyn Fn(&Path); 3] =
        [&|file| fs::write(file, "").expect("ours"), &|file| fs::write(file, "damaged").expect("ours"), &|file| {
            let whole = fs::read(file).expect("ours");
            fs::write(file, &whole[..whole.len() / 2]).expect("ours");
        }];
    for damage in damages {
        let damaged = files(&scratch.join("cache")).iter().map(|file| damage(file)).count();
        assert!(damaged > 0, "there is a cache");
        let host = start();
        assert!(!line(&host).contains("cache"), "{}", line(&host));
        serves_and_ends(host);
    }
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).expect("is there").map(|entry| entry.expect("is there").path());
    let below = |path: std::path::PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(below).collect()
}

#[test]
fn where_no_cache_can_be_made_there_is_none_and_a_warning_says_so() {
    let scratch = Scratch::new();
    let file = scratch.file("file", "");
    let host = ["XDG_CACHE_HOME", "HOME", "TMPDIR"];
    let host =
        host.into_iter().fold(Host::with("hello").arg("--no-control"), |setup, name| setup.environment(name, &file));
    let host = host.arg("--no-state").start();
    host.stderr_with("cannot be made");
    serves_and_ends(host);
}

#[test]
fn without_descriptors_connections_wait_and_the_log_says_so_once() {
    let host = Setup::run(guest("hello")).through_shell(r#"ulimit -n 40; exec "$@""#).start();
    let mut served = host.connect();
    assert_eq!(served.get("/").text(), "Hello World!");
    let mut waiting: Vec<Client> = (0..60).map(|_| host.connect()).collect();
    for client in &mut waiting {
        client.ask("/");
    }
    host.stderr_with("cannot accept connections");
    for _ in 0..100 {
        assert_eq!(served.get("/").text(), "Hello World!");
    }
    // Each that is answered and goes makes room for another.
    for mut client in waiting {
        assert_eq!(client.answer().text(), "Hello World!");
    }
    host.stderr_with("connections are accepted again");
}
