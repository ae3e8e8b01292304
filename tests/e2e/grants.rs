//! Nothing is granted by default; what is granted is what the guest sees, and no more.

use std::{
    fs,
    os::unix::fs::symlink,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::harness::{BOTH, Host, Http, Scratch, Setup};

fn arguments(dir: &Scratch, rest: &str) -> String {
    format!("{}{rest}", dir.path().display())
}

#[test]
fn without_grants_a_guest_sees_no_environment() {
    let host = Host::with("reads_env").environment("SECRET", "of the host").start();
    for version in BOTH {
        let answer = host.get(version, "/");
        assert!(!answer.text().contains('='), "{}", answer.text());
    }
}

#[test]
fn granted_variables_are_all_that_a_guest_sees() {
    let dir = Scratch::new();
    let file = dir.file("vars", "# comment\n\nFROM_FILE=two words\nBOTH=file\nPASSED\n");
    let host = Host::with("reads_env")
        .environment("SECRET", "of the host")
        .environment("PASSED", "on")
        .flag("--env", "A=b=c")
        .flag("--env", "BOTH=flag")
        .flag("--env", "SECOND=")
        .flag("--env-file", file)
        .start();
    for version in BOTH {
        let answer = host.get(version, "/");
        let variables: Vec<&str> = answer.text().lines().filter(|line| !line.starts_with("argument")).collect();
        assert_eq!(variables, ["A=b=c", "BOTH=flag", "FROM_FILE=two words", "PASSED=on", "SECOND="]);
    }
}

#[test]
fn without_grants_there_are_no_files() {
    let (reads, writes) = (Host::of("opens_dir"), Host::of("writes_dir"));
    for version in BOTH {
        for path in ["/", "/etc/passwd", "/tmp", "/proc/self/environ"] {
            let answer = reads.get(version, path);
            assert!(answer.text().starts_with("error: "), "{path}: {}", answer.text());
        }
        assert!(writes.post(version, "/tmp/astra-host-e2e", b"x").text().starts_with("error: "));
    }
}

#[test]
fn a_granted_directory_can_be_read_and_not_written() {
    let dir = Scratch::new();
    dir.file("one.txt", "content");
    dir.file("sub/two.txt", "deeper");
    let grant = arguments(&dir, "::/data");
    let reads = Host::with("opens_dir").flag("--dir", &grant).start();
    let writes = Host::with("writes_dir").flag("--dir", &grant).start();
    for version in BOTH {
        assert_eq!(reads.get(version, "/data").text(), "one.txt\nsub\n");
        assert_eq!(reads.get(version, "/data/one.txt").text(), "content");
        assert_eq!(reads.get(version, "/data/sub/two.txt").text(), "deeper");
        for path in ["/data/one.txt", "/data/new.txt"] {
            let answer = writes.post(version, path, b"changed");
            assert!(answer.text().starts_with("error: "), "{path}: {}", answer.text());
        }
        let answer = writes.ask(version, "DELETE", "/data/one.txt", &[], None).expect("a whole answer");
        assert!(answer.text().starts_with("error: "), "{}", answer.text());
    }
    assert_eq!(fs::read_to_string(dir.join("one.txt")).expect("is there"), "content");
    assert!(!dir.join("new.txt").exists());
}

#[test]
fn a_directory_that_is_granted_for_writing_can_be_written() {
    let dir = Scratch::new();
    let host = Host::with("writes_dir").flag("--dir", arguments(&dir, "::/data:rw")).start();
    for version in BOTH {
        assert_eq!(host.post(version, "/data/new.txt", b"written").text(), "done\n");
        assert_eq!(fs::read_to_string(dir.join("new.txt")).expect("is there"), "written");
        let answer = host.ask(version, "DELETE", "/data/new.txt", &[], None).expect("a whole answer");
        assert_eq!(answer.text(), "done\n");
        assert!(!dir.join("new.txt").exists());
    }
}

#[test]
fn a_guest_without_files_reads_them_and_is_told_what_it_needs_to_write_them() {
    let dir = Scratch::new();
    dir.file("one.txt", "content");
    let host = Host::with("without_files").flag("--dir", arguments(&dir, "::/read")).start();
    let refused = host.get(Http::One, "/read/one.txt");
    assert!(refused.text().contains("not permitted"), "{}", refused.text());

    let host = Host::with("without_files").flag("--dir", arguments(&dir, "::/data:rw")).start();
    let answer = host.get(Http::One, "/data/one.txt");
    assert!(answer.text().contains("os error 8"), "{}", answer.text());
    host.json("the hint", |line| line["text"].as_str().is_some_and(|text| text.contains("feature `files`")));
}

#[test]
fn a_directory_without_a_name_for_the_guest_keeps_its_own() {
    let dir = Scratch::new();
    dir.file("one.txt", "content");
    let host = Host::with("opens_dir").flag("--dir", dir.path()).start();
    assert_eq!(host.get(Http::One, &arguments(&dir, "/one.txt")).text(), "content");
}

#[test]
fn several_directories_can_be_granted() {
    let (one, two) = (Scratch::new(), Scratch::new());
    one.file("a", "of one");
    two.file("a", "of two");
    let host = Host::with("opens_dir")
        .flag("--dir", arguments(&one, "::/one"))
        .flag("--dir", arguments(&two, "::/two"))
        .start();
    assert_eq!(host.get(Http::One, "/one/a").text(), "of one");
    assert_eq!(host.get(Http::One, "/two/a").text(), "of two");
}

#[test]
fn nothing_outside_of_a_granted_directory_is_reached() {
    let dir = Scratch::new();
    dir.file("secret", "not granted");
    dir.file("granted/one.txt", "content");
    symlink(dir.join("secret"), dir.join("granted/absolute")).expect("can be made");
    symlink("../secret", dir.join("granted/relative")).expect("can be made");
    symlink("..", dir.join("granted/up")).expect("can be made");
    let host = Host::with("opens_dir").flag("--dir", arguments(&dir, "/granted::/data")).start();
    for version in BOTH {
        for path in ["/data/../secret", "/data/absolute", "/data/relative", "/data/up/secret", "/secret"] {
            let answer = host.get(version, path);
            assert!(answer.text().starts_with("error: "), "{path}: {}", answer.text());
        }
    }
}

#[test]
fn a_guest_dates_what_it_may_write() {
    let dir = Scratch::new();
    dir.file("file", "");
    symlink("file", dir.join("link")).expect("can be made");
    dir.file("dir/file", "");
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let writes = Host::with("touches").flag("--dir", arguments(&dir, "::/data:rw")).start();
    let reads = Host::with("touches").flag("--dir", arguments(&dir, "::/data")).start();
    for (version, name) in BOTH.into_iter().zip(["link", "dir"]) {
        assert_eq!(reads.get(version, &format!("/?{name}")).text(), "not-permitted");
        assert_eq!(writes.get(version, &format!("/?{name}")).text(), "done");
        assert_eq!(fs::metadata(dir.join(name)).expect("is there").modified().expect("a time"), time, "{name}");
    }
    assert_eq!(writes.get(Http::One, "/?none").text(), "no-entry");
}

#[test]
fn what_is_neither_file_nor_directory_is_refused_and_holds_up_nobody() {
    let dir = Scratch::new();
    let fifo = dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("a Unix").success());
    let reads = Host::with("opens_dir").flag("--dir", arguments(&dir, "::/data")).start();
    let writes = Host::with("writes_dir").flag("--dir", arguments(&dir, "::/data:rw")).start();
    let touches = Host::with("touches").flag("--dir", arguments(&dir, "::/data:rw")).start();
    for version in BOTH {
        assert_eq!(touches.get(version, "/?fifo").text(), "not-permitted");
        assert!(reads.get(version, "/data/fifo").text().starts_with("error: "));
        assert!(writes.post(version, "/data/fifo", b"x").text().starts_with("error: "));
    }
}

#[test]
fn a_guest_reads_its_configuration_values_under_all_names_that_are_in_use() {
    let scratch = Scratch::new();
    for name in [
        "wasi:config/store@0.2.0-rc.1",
        "wasi:config/store@0.2.0-draft-2024-09-27",
        "wasi:config/store@0.2.0-draft",
        "wasi:config/runtime@0.2.0-draft",
    ] {
        let text = include_str!("../guests/prints-config.wat").replace("CONFIG", name);
        let module = scratch.file("prints_config.wasm", wat::parse_str(text).expect("valid text"));
        let host = Setup::run(module)
            .environment("FROM_HOST", "passed on")
            .environment("SECRET", "of the host")
            .flag("--config-var", "feature_x=on")
            .flag("--config-var", "FROM_HOST")
            .start();
        let answer = host.get(Http::One, "/");
        let id = answer.header("x-request-id").expect("every answer has an id");
        assert_eq!(host.access(&answer)["outcome"], "no_answer", "{name}");
        let line = host.json("the guest's line", |line| line["kind"] == "guest" && line["id"] == id);
        assert_eq!(line["text"], "on,none,feature_x,on,FROM_HOST,passed on,", "{name}");
    }
}
