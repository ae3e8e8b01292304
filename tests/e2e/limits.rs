//! What a guest may use: time, CPU time, memory, handles, random bytes. And that its worker is free again.

use crate::harness::{BOTH, Host, Http};

#[test]
fn a_guest_that_computes_is_cut_at_its_deadline() {
    Host::with("loops_for_ever").flag("--deadline", "300ms").start().expect("/", 504, "deadline");
}

#[test]
fn a_guest_that_sleeps_is_cut_at_its_deadline() {
    Host::with("sleeps_for_ever").flag("--deadline", "300ms").start().expect("/", 504, "deadline");
}

#[test]
fn a_guest_that_waits_for_a_stalled_body_is_cut_at_its_deadline() {
    let host = Host::with("reads_body_stalled").flag("--deadline", "300ms").start();
    let mut client = host.connect();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf ");
    let answer = client.answer();
    assert_eq!(answer.status, 504);
    assert_eq!(host.access(&answer)["outcome"], "deadline");

    let mut connection = host.http2();
    let mut stream = connection.open("POST", "/", &[], false);
    stream.send(b"half ", false).expect("the host reads");
    let answer = stream.answer().expect("an answer");
    assert_eq!(answer.status, 504);
    assert_eq!(host.access(&answer)["outcome"], "deadline");
}

#[test]
fn the_worker_of_a_guest_that_was_cut_is_free_again() {
    let host = Host::with("slow").flag("--deadline", "300ms").flag("--max-workers", "1").start();
    for _ in 0..3 {
        assert_eq!(host.get(Http::One, "/?ms=3600000").status, 504);
        assert_eq!(host.get(Http::One, "/?ms=1").status, 200);
    }
    let loops = Host::with("loops_for_ever").flag("--deadline", "300ms").flag("--max-workers", "1").start();
    for _ in 0..3 {
        assert_eq!(loops.get(Http::One, "/").status, 504);
    }
}

#[test]
fn guests_that_compute_on_every_core_do_not_keep_others_from_their_answers() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let host = Host::with("loops_for_ever").flag("--deadline", "500ms").start();
    let mut clients: Vec<_> = (0..4 * cores).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.ask("/");
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 504);
    }
}

#[test]
fn a_guest_that_uses_up_its_cpu_time_is_503() {
    let host = Host::with("loops_for_ever").flag("--cpu", "100ms").start();
    host.expect("/", 503, "cpu");
    assert!(host.get(Http::One, "/").header("retry-after").is_some());
}

#[test]
fn sleeping_is_no_cpu_time() {
    Host::with("slow").flag("--cpu", "100ms").start().expect("/?ms=400", 200, "ok");
}

#[test]
fn cpu_time_after_the_head_cuts_the_response() {
    Host::with("loops_after_head").flag("--cpu", "200ms").start().expect_cut("/", "first", "cpu");
}

#[test]
fn server_sent_events_outlive_the_deadline() {
    let host = Host::with("sse").flag("--deadline", "500ms").start();
    for version in BOTH {
        let answer = host.get(version, "/?ms=300&count=6");
        assert_eq!(answer.text().matches("data: ").count(), 6);
        assert_eq!(host.access(&answer)["outcome"], "ok");
    }
}

#[test]
fn a_stream_is_cut_at_its_stream_deadline() {
    let host = Host::with("sse").flag("--stream-deadline", "500ms").start();
    host.expect_cut("/?ms=100", "id: 1\n", "deadline");
}

#[test]
fn a_stream_that_computes_is_cut_at_its_stream_deadline() {
    let host = Host::with("loops_after_head").flag("--stream-deadline", "500ms").start();
    host.expect_cut("/", "first", "deadline");
}

#[test]
fn a_stream_that_nobody_reads_is_cut_at_its_stream_deadline() {
    let host = Host::with("writes_without_end").flag("--stream-deadline", "500ms").start();
    let mut client = host.connect();
    client.ask("/");
    let head = client.head();
    let id = head.header("x-request-id").expect("every answer has an id");
    host.json("that it was cut", |line| {
        line["message"].as_str().is_some_and(|text| text.contains(id) && text.contains("`stream_deadline` passed"))
    });
    // Its line is written when the connection ends, which without this would be when it has not read for `write_timeout`.
    drop(client);
    let access = host.access_of(id);
    assert_eq!((&access["status"], &access["outcome"]), (&200.into(), &"deadline".into()));
}

#[test]
fn a_guest_may_go_on_after_its_answer() {
    for name in ["returns_early", "sleeps_after_answer"] {
        let host = Host::of(name);
        for version in BOTH {
            let answer = host.get(version, "/?ms=300");
            assert_eq!(answer.text(), "early\n");
            let id = answer.header("x-request-id").expect("every answer has an id");
            host.json("that the guest got to its end", |line| {
                line["kind"] == "guest"
                    && line["id"] == id
                    && line["text"].as_str().is_some_and(|text| text.ends_with("after the answer"))
            });
            assert_eq!(host.access(&answer)["outcome"], "ok");
        }
    }
}

#[test]
fn a_guest_may_go_on_without_its_client() {
    let host = Host::of("sleeps_after_answer");
    let id = host.left_with_the_head("/?ms=300", |id| host.printed(id, "answered"));
    host.printed(&id, "slept after the answer");
    host.expect_outcome(Some(&id), "client_gone");
}

#[test]
fn a_guest_that_goes_on_after_its_answer_is_cut_at_its_deadline() {
    for name in ["returns_early", "sleeps_after_answer"] {
        let host = Host::with(name).flag("--deadline", "300ms").start();
        for version in BOTH {
            let answer = host.get(version, "/?ms=3600000");
            assert_eq!((answer.status, answer.text()), (200, "early\n"), "the answer is complete before that");
            assert_eq!(host.access(&answer)["outcome"], "deadline");
        }
    }
}

#[test]
fn a_guest_that_wants_too_much_memory_is_503() {
    let host = Host::with("grows_memory").flag("--max-memory", "32MiB").start();
    host.expect("/", 503, "memory");
    host.expect("/?mib=8", 200, "ok");
    let access = host.access(&host.get(Http::One, "/?mib=8"));
    let peak = access["peak_memory"].as_u64().expect("a number");
    assert!((8 << 20..=32 << 20).contains(&peak), "{access}");
}

#[test]
fn a_guest_that_makes_handles_without_end_is_500() {
    let host = Host::of("exhausts_handles");
    host.expect("/", 500, "trap");
}

#[test]
fn a_guest_that_asks_for_a_gigabyte_of_random_bytes_is_500() {
    let host = Host::of("random_flood");
    host.expect("/", 500, "trap");
    assert_eq!(host.get(Http::One, "/?bytes=65536").text(), "65536 random bytes\n");
}

#[cfg(target_os = "linux")]
#[test]
fn neither_body_is_ever_held_whole() {
    use std::io::{Read, Write};

    const SIZE: usize = 256 << 20;
    let host = Host::with("echo").flag("--max-body", "1GiB").start();
    host.post(Http::One, "/", b"warm");
    let before = host.memory("VmRSS");
    let mut stream = host.connect().stream().try_clone().expect("a socket");
    write!(stream, "POST / HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {SIZE}\r\n\r\n")
        .expect("sent");
    let mut writer = stream.try_clone().expect("a socket");
    let writing = std::thread::spawn(move || {
        let piece = [b'x'; 64 << 10];
        (0..SIZE / piece.len()).try_for_each(|_| writer.write_all(&piece))
    });
    let mut read = 0;
    let mut piece = vec![0; 64 << 10];
    loop {
        match stream.read(&mut piece).expect("the host answers") {
            0 => break,
            n => read += n,
        }
    }
    writing.join().expect("no panic").expect("the host reads all of it");
    assert!(read > SIZE, "{read} bytes came back");
    let grown = host.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 20, "the host grew by {} MiB", grown >> 20);
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_does_not_read_makes_its_guest_wait() {
    let host = Host::of("writes_without_end");
    let mut first = host.connect();
    first.ask("/");
    assert_eq!(first.head().status, 200);
    let before = host.memory("VmRSS");
    let mut clients: Vec<_> = (0..8).map(|_| host.connect()).collect();
    for client in &mut clients {
        client.ask("/");
        assert_eq!(client.head().status, 200);
        client.exactly(1 << 20).expect("as much as is asked for");
    }
    let grown = host.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 20, "the host grew by {} MiB", grown >> 20);
}

#[cfg(target_os = "linux")]
#[test]
fn a_guest_that_hoards_responses_does_not_fill_the_host() {
    let host = Host::of("hoards_responses");
    assert_eq!(host.get(Http::One, "/").text().parse(), Ok(256 << 10), "all bodies that are not set share a bound");
    let before = host.memory("VmRSS");
    for version in BOTH {
        assert_eq!(host.get(version, "/").status, 200);
    }
    host.expect("/headers", 500, "trap");
    let grown = host.memory("VmHWM").saturating_sub(before);
    assert!(grown < 64 << 20, "the host grew by {} MiB", grown >> 20);
}
