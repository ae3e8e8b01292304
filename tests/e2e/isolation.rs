//! Nothing of a guest is there for the next one in its place: memory, tables and globals are their image's, however the last one ended.
//!
//! The guest is `looks-for-secrets.wat`. One worker on one core runs one guest at a time, so that each has the memory of the one before it. Each
//! of the two ways to make memory fresh is tried where the kernel has both. Memories alone are tried in host/src/guest/memory, and millions
//! of guests in the benchmarks (`isolation`).

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::harness::{Answer, Client, Scratch, Setup, all_waiting, waiting};

fn looks_for_secrets(scratch: &Scratch) -> PathBuf {
    let text = include_str!("../guests/looks-for-secrets.wat");
    scratch.file("looks_for_secrets.wasm", wat::parse_str(text).expect("valid text"))
}

fn serve(scratch: &Scratch, way: &str) -> Setup {
    Setup::run(looks_for_secrets(scratch)).flag("--reset", way).flag("--max-workers", "1").on_one_core()
}

/// The ways to make memory fresh that there are here: the kernel tells what was written from Linux 6.7 on.
fn ways() -> &'static [&'static str] {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let can_scan = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    if can_scan { &["copy", "scan"] } else { &["copy"] }
}

fn request(letter: char) -> String {
    format!("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\n{letter}")
}

fn ask(client: &mut Client, letter: char) -> Answer {
    client.send(request(letter));
    client.answer()
}

/// Asserts that so many guests, one after the other, find nothing. Each leaves a secret; one in a hundred has more to hide it in.
fn expect_clean(client: &mut Client, guests: usize) {
    for n in 0..guests {
        let letter = if n % 100 == 0 { 'R' } else { 'r' };
        let answer = ask(client, letter);
        assert_eq!((answer.status, answer.text().trim_end()), (200, "clean"), "guest {n}");
    }
}

#[test]
fn a_guest_that_looks_would_find_something() {
    let scratch = Scratch::new();
    for way in ways() {
        let host = serve(&scratch, way).start();
        let mut client = host.connect();
        for (letter, what) in [('m', "memory"), ('b', "table"), ('g', "global")] {
            for letter in [letter, letter.to_ascii_uppercase()] {
                assert_eq!(ask(&mut client, letter).text().trim_end(), what, "{letter}");
                assert_eq!(ask(&mut client, 's').text().trim_end(), "clean", "after {letter}");
            }
        }
    }
}

/// A letter for a guest with little, and for one with much.
fn both(letter: char) -> [char; 2] {
    [letter, letter.to_ascii_uppercase()]
}

#[test]
fn a_guest_finds_its_image_however_the_one_before_it_has_ended() {
    let scratch = Scratch::new();
    for way in ways() {
        let host = serve(&scratch, way).start();
        let mut client = host.connect();
        for _ in 0..50 {
            for (letter, status) in [('r', 200), ('t', 500), ('e', 500)] {
                for letter in both(letter) {
                    assert_eq!(ask(&mut host.connect(), letter).status, status, "{letter}");
                    for look in both('s') {
                        assert_eq!(ask(&mut client, look).text().trim_end(), "clean", "after {letter}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_guest_finds_its_image_after_one_that_was_cut_at_its_deadline() {
    let scratch = Scratch::new();
    for way in ways() {
        let host = serve(&scratch, way).flag("--deadline", "300ms").start();
        let mut client = host.connect();
        for letter in ['l', 'w', 'L', 'W', 'l', 'w', 'L', 'W'] {
            assert_eq!(ask(&mut host.connect(), letter).status, 504, "{letter}");
            for look in both('s') {
                // On a machine that is busy with others it may itself be cut, which leaves nothing worse.
                let mut answers = std::iter::repeat_with(|| ask(&mut client, look)).take(20);
                let answer = answers.find(|answer| answer.status != 504).expect("it takes no time to speak of");
                assert_eq!(answer.text().trim_end(), "clean", "after {letter}");
            }
        }
    }
}

#[test]
fn a_guest_finds_its_image_after_one_that_was_killed_or_has_lost_its_client() {
    let scratch = Scratch::short();
    let control = scratch.join("control");
    for way in ways() {
        let host = serve(&scratch, way).flag("--control", &control).start();
        let mut client = host.connect();
        for letter in ['l', 'w', 'L', 'W'] {
            let waits_for = if letter.eq_ignore_ascii_case(&'l') { "running" } else { "sleep" };
            all_waiting(&control, "", 0);
            let mut killed = host.connect();
            killed.send(request(letter));
            let id = waiting(&control, waits_for);
            let ended = Setup::bare().arg("kill").arg(&id).flag("--control", &control).end();
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(killed.answer().status, 503);
            host.expect_outcome(Some(&id), "killed");
            assert_eq!(ask(&mut client, 'S').text().trim_end(), "clean", "{letter}, killed");

            all_waiting(&control, "", 0);
            let mut leaving = host.connect();
            leaving.send(request(letter));
            let id = waiting(&control, waits_for);
            leaving.reset();
            assert_eq!(ask(&mut client, 'S').text().trim_end(), "clean", "{letter}, without its client");
            host.expect_outcome(Some(&id), "client_gone");
        }
    }
}

#[test]
fn thousands_of_guests_find_their_image() {
    let scratch = Scratch::new();
    for way in ways() {
        let host = serve(&scratch, way).start();
        expect_clean(&mut host.connect(), 5000);
    }
}

/// A page that is being moved is nowhere for a moment, and is what was written all the same (bytecodealliance/wasmtime#14357).
#[cfg(target_os = "linux")]
#[test]
fn guests_find_their_image_while_their_pages_are_moved() {
    let scratch = Scratch::new();
    for way in ways() {
        let host = serve(&scratch, way).start();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Where that is not allowed there is nothing to see.
                while !is_over.load(Ordering::SeqCst) && fs::write("/proc/sys/vm/compact_memory", "1").is_ok() {
                    thread::yield_now();
                }
            });
            let found = scope.spawn(|| expect_clean(&mut host.connect(), 2000)).join();
            is_over.store(true, Ordering::SeqCst);
            found.expect("nothing is found");
        });
    }
}
