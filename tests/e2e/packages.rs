//! `new`, and what is made of the command line itself: `completions` and `manual`.

use std::{fs, process::Command};

use crate::harness::{BOTH, Http, Scratch, Setup, root, target_dir};

/// `astra-host new NAME` in `dir`.
fn new(dir: &Scratch, name: &str) -> Setup {
    Setup::bare().arg("new").arg(name).through_shell(r#"cd "$DIR" && exec "$@""#).environment("DIR", dir.path())
}

fn names(dir: impl AsRef<std::path::Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("can be listed");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("listed").file_name().into_string().expect("ours")).collect();
    names.sort();
    names
}

#[test]
fn a_new_package_tests_natively_and_is_served() {
    let dir = Scratch::new();
    let ended = new(&dir, "my-app").end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("`astra-host dev my-app`"), "{ended:?}");
    assert_eq!(names(dir.path()), ["my-app"]);
    let package = dir.join("my-app");
    assert_eq!(names(&package), [".gitignore", "Cargo.toml", "README.md", "src"]);

    // The versions that this repository was tested with, and nothing to look up.
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).expect("cargo has made it");
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--offline"]).current_dir(&package).env("CARGO_TARGET_DIR", target_dir());
    let tested = cargo.env_remove("RUSTFLAGS").output().expect("cargo can be run");
    let said = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success(), "{said}\n{}", String::from_utf8_lossy(&tested.stderr));
    assert!(said.contains("test result: ok. 2 passed"), "{said}");

    let host = Setup::run(&package).start();
    for version in BOTH {
        assert_eq!(host.get(version, "/").text(), "Hello World!\n");
        let answer = host.get(version, "/hello/Ada");
        assert_eq!((answer.status, answer.text()), (200, "Hello Ada!\n"));
        assert_eq!(host.access(&answer)["handler"], "my_app");
    }
}

#[test]
fn dev_serves_what_was_saved_last_and_builds() {
    let dir = Scratch::new();
    assert_eq!(new(&dir, "draft").end().code, Some(0));
    let package = dir.join("draft");
    fs::copy(root().join("Cargo.lock"), package.join("Cargo.lock")).expect("cargo has made it");
    let source = package.join("src/lib.rs");
    let first = fs::read_to_string(&source).expect("it was made");
    let save = |text: &str| fs::write(&source, text).expect("can be written");
    let saying = |text: &str| first.replace("Hello World!", text);

    // It waits for a package that does not build yet.
    save("this is not Rust");
    let mut host = Setup::dev(&package).begin();
    host.stderr_with("waiting for a change");
    save(&first);
    host.listens();
    assert_eq!(host.get(Http::One, "/").text(), "Hello World!\n");

    save(&saying("Hello again!"));
    let line = host.stderr_with(" after it was saved");
    assert!(line.contains("draft") && line.contains("r1 -> r2"), "{line}");
    assert_eq!(host.get(Http::One, "/").text(), "Hello again!\n");

    save("this is not Rust either");
    host.stderr_with("cargo could not build");
    assert_eq!(host.get(Http::One, "/").text(), "Hello again!\n", "the last good one");
    save(&saying("Hello there!"));
    host.stderr_with("r2 -> r3");
    assert_eq!(host.get(Http::One, "/").text(), "Hello there!\n");
}

#[test]
fn a_new_package_is_given_the_sdk_that_is_asked_for() {
    let dir = Scratch::new();
    let sdk = root().join("guest-sdk");
    assert_eq!(new(&dir, "app").flag("--sdk", &sdk).end().code, Some(0));
    let manifest = fs::read_to_string(dir.join("app/Cargo.toml")).expect("it was made");
    assert!(manifest.contains(&format!("path = {sdk:?}")), "{manifest}");
    new(&dir, "other").flag("--sdk", "/does/not/exist").end().expect_complaint(1, &["/does/not/exist", "--sdk DIR"]);
    assert_eq!(names(dir.path()), ["app"]);
}

#[test]
fn a_name_that_cargo_would_refuse_is_wrong_usage() {
    let dir = Scratch::new();
    for name in ["2fast", "a/b", "fn", "test"] {
        new(&dir, name).end().expect_complaint(2, &["`NAME`", &format!("found `{name}`")]);
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_new_package_takes_the_place_of_nothing_but_an_empty_directory() {
    let dir = Scratch::new();
    dir.file("full/precious", "mine");
    dir.file("file", "mine");
    fs::create_dir(dir.join("empty")).expect("ours");
    for taken in ["full", "file"] {
        new(&dir, taken).end().expect_complaint(1, &[&format!("`{taken}`"), "choose another name"]);
    }
    assert_eq!(new(&dir, "empty").end().code, Some(0));
    assert_eq!(names(dir.path()), ["empty", "file", "full"]);
    assert_eq!((names(dir.join("full")), names(dir.join("empty")).len()), (vec!["precious".to_owned()], 4));
}

#[test]
fn shells_get_completions_of_all_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Setup::bare().arg("completions").arg(shell).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for word in ["astra-host", "inspect", "completions", "max-workers"] {
            assert!(ended.stdout.contains(word), "{shell} does not know {word}");
        }
    }
    Setup::bare().arg("completions").arg("cmd").end().expect_complaint(2, &["cmd", "bash", "zsh", "fish"]);
}

#[test]
fn each_command_gets_a_manual_page() {
    let dir = Scratch::new();
    let pages = dir.join("share/man1");
    let ended = Setup::bare().arg("manual").arg(&pages).end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let help = Setup::bare().arg("--help").end().stdout;
    let (_, commands) = help.split_once("Commands:\n").expect("there are some");
    let commands = commands.lines().map_while(|line| line.split_whitespace().next());
    let mut expected: Vec<String> =
        commands.filter(|command| *command != "help").map(|command| format!("astra-host-{command}.1")).collect();
    expected.push("astra-host.1".to_owned());
    expected.sort();
    assert_eq!(names(&pages), expected);
    let page = fs::read_to_string(pages.join("astra-host-run.1")).expect("it was written");
    assert!(page.contains(".TH astra-host-run 1") && page.contains("max\\-workers"), "{page}");

    let blocked = dir.file("blocked", "");
    Setup::bare().arg("manual").arg(&blocked).end().expect_complaint(1, &[&blocked.display().to_string()]);
}
