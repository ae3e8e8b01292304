//! The host inside of another program, this one: started through the library, and gone without a trace when it is shut down. Linux lists
//! the threads of a process.
#![cfg(target_os = "linux")]

use std::{
    fs,
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use astra_host::{Host, HostBuilder, guest::CacheMode};

use crate::harness::{Client, HOSTS_HERE, PATIENCE, guest};

fn builder(name: &str) -> HostBuilder {
    let mut builder = Host::builder().module(guest(name)).listen("127.0.0.1:0");
    builder.config_mut().server.cache = CacheMode::Off; // the user's own is left alone
    builder
}

#[test]
fn a_client_that_stops_in_the_middle_of_its_body_gets_408() {
    let _here = HOSTS_HERE.read().unwrap_or_else(PoisonError::into_inner);
    let mut builder = builder("reads_body_stalled");
    builder.config_mut().server.body_timeout = Duration::from_millis(50);
    let host = builder.start().expect("it can be served");
    let mut client = Client::connect(host.local_addrs()[0]);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nHel");
    assert_eq!(client.answer().status, 408);
    assert_eq!(client.until_closed(), b"");
}

#[test]
fn an_embedded_host_serves_and_leaves_no_thread_behind() {
    let _no_other = HOSTS_HERE.write().unwrap_or_else(PoisonError::into_inner);
    let host = builder("hello").start().expect("it can be served");
    let addr = host.local_addrs()[0];
    assert_eq!(Client::connect(addr).get("/").text(), "Hello World!");
    // A thread gives itself its name, in its own time.
    wait_for_threads(|names| {
        ["astra-worker", "astra-monitor"].iter().all(|ours| names.iter().any(|name| name == ours))
    });

    assert!(host.shutdown(Duration::from_secs(30)).is_none(), "nothing was cut");
    assert!(Client::try_connect(addr).is_err());
    // One that was joined may be listed until the kernel has taken it apart.
    wait_for_threads(|names| !names.iter().any(|name| name.starts_with("astra-")));
}

fn wait_for_threads(are_right: impl Fn(&[String]) -> bool) {
    let started = Instant::now();
    while !are_right(&threads()) {
        assert!(started.elapsed() < PATIENCE, "{:?}", threads());
        thread::yield_now();
    }
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it").filter_map(Result::ok);
    // One may end while we look.
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}
