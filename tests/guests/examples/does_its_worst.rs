//! Does its worst, in the way that its path names, without end where there is none of itself; `/` answers that it is well.
//!
//! What a path needs is its query: an address for `/connects`, a URL for `/asks`, a file for `/opens` and `/reopens`.
#![cfg(target_family = "wasm")]
#![allow(clippy::print_stdout, reason = "a flood of it is one of the ways")]

use std::{fmt::Debug, fs::File, hint::black_box, mem::forget, net::TcpStream, thread::sleep, time::Duration};

use test_guests::{
    out,
    wasip2::{
        cli::stdout::get_stdout,
        clocks::monotonic_clock,
        http::types::{
            ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
            ResponseOutparam,
        },
        random::{insecure::get_insecure_random_bytes, random::get_random_bytes},
        sockets::{network::IpAddressFamily, tcp_create_socket::create_tcp_socket},
    },
};

test_guests::export!(do_it);

const HOUR: Duration = Duration::from_secs(3600);

fn do_it(request: &IncomingRequest, responder: ResponseOutparam) {
    let target = request.path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    match path {
        "/" => return test_guests::answer(responder, "well\n"),

        "/computes" => compute(),
        "/calls" => for_ever(monotonic_clock::now),
        "/draws" => for_ever(|| get_random_bytes(1 << 20)),
        "/prints" => for_ever(|| println!("a flood of lines")),
        // Long after there is no more.
        "/grows" => for_ever(|| std::arch::wasm32::memory_grow::<0>(1)),

        "/sleeps" => for_ever(|| sleep(HOUR)),
        "/naps" => for_ever(|| sleep(Duration::from_nanos(1))),
        "/reads" => {
            let body = request.consume().expect("the first call");
            let stream = body.stream().expect("the first call");
            while stream.blocking_read(u64::MAX).is_ok() {}
        }
        "/writes" => {
            let body = test_guests::head(responder, 200, &[]);
            let stream = body.write().expect("the first call");
            while stream.blocking_write_and_flush(&[b'x'; 4096]).is_ok() {}
            return;
        }
        "/connects" => drop(TcpStream::connect(query)),
        "/asks" => {
            let large = "x".repeat(16 << 10);
            let headers: Vec<_> = ["x-a", "x-b", "x-c"].iter().map(|name| (*name, large.as_str())).collect();
            drop(out::send(out::request(&Method::Get, query, &headers)));
        }

        "/recurses" => drop(recurse(1)),
        "/fields" => for_ever(|| forget(Fields::new())),
        "/pollables" => for_ever(|| forget(monotonic_clock::subscribe_duration(1))),
        "/streams" => for_ever(|| forget(get_stdout())),
        "/requests" => for_ever(|| forget(OutgoingRequest::new(Fields::new()))),
        "/bodies" => for_ever(|| {
            let response = OutgoingResponse::new(Fields::new());
            let body = response.body().expect("the first call");
            let stream = body.write().expect("the first call");
            while matches!(stream.check_write(), Ok(1..)) && stream.write(&[b'x'; 4096]).is_ok() {}
            forget((stream, body, response));
        }),
        "/headers" => drop(OutgoingResponse::new(large_fields())),
        "/trailers" => {
            let body = test_guests::head(responder, 200, &[]);
            test_guests::write(&body, "first");
            test_guests::let_it_leave(request);
            drop(OutgoingBody::finish(body, Some(large_fields())));
            return;
        }
        "/opens" => return hoard(responder, || File::open(query).map_err(|error| error.kind())),
        "/sockets" => return hoard(responder, || create_tcp_socket(IpAddressFamily::Ipv4).map_err(|code| code.name())),
        "/reopens" => {
            for _ in 0..1000 {
                let _one = (
                    File::open(query).expect("it is there"),
                    create_tcp_socket(IpAddressFamily::Ipv4).expect("it is granted"),
                );
            }
        }
        "/blames" => {
            return ResponseOutparam::set(responder, Err(ErrorCode::InternalError(Some("\u{1}".repeat(4 << 20)))));
        }
        "/random" => drop(get_random_bytes(1 << 30)),
        "/insecure" => drop(get_insecure_random_bytes(1 << 30)),
        _ => {}
    }
    test_guests::answer(responder, "that was all\n");
}

fn compute() {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn for_ever<T>(mut what: impl FnMut() -> T) {
    loop {
        black_box(what());
    }
}

/// Takes as many as it is given, says how many that was and why not more, and has them until its client leaves.
fn hoard<T, E: Debug>(responder: ResponseOutparam, mut one: impl FnMut() -> Result<T, E>) {
    let mut all = Vec::new();
    let refusal = loop {
        match one() {
            Ok(one) => all.push(one),
            Err(error) => break error,
        }
    };
    let body = test_guests::head(responder, 200, &[]);
    test_guests::write(&body, &format!("{}, then {refusal:?}\n", all.len()));
    sleep(HOUR);
}

fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    if frame[0] == 0 { n } else { recurse(n + 1) + frame[1] }
}

/// As many as the host takes, in as many fields as it takes.
fn large_fields() -> Fields {
    let value = [b'x'; 1024];
    loop {
        let fields = Fields::new();
        for n in 0..100 {
            if fields.append(&format!("x-{n}"), &value).is_err() {
                return fields;
            }
        }
    }
}
