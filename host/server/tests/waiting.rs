//! Threads wait, connections don't: clients that are silent, slow or gone, and handlers that sleep, do not keep others waiting.

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use astra_server::{Body, Exchange, Interrupted, Request, Response, blocking, sleep_until, wait, wait_alone};
use support::{Client, Gate, HandlerFn, cores, server, signals, start, start_handler, until};

#[test]
fn as_many_silent_connections_as_workers_leave_room_for_one_more_client() {
    let workers = 4;
    let server = start(server().max_workers(workers), |_req, _info| Response::new(Body::new("hello")));
    let silent: Vec<Client> = (0..workers).map(|_| server.connect()).collect();
    assert_eq!(server.connect().get("/").text(), "hello");
    drop(silent);
}

#[test]
fn as_many_half_sent_heads_as_workers_leave_room_for_one_more_client() {
    let workers = 4;
    let server = start(server().max_workers(workers), |_req, _info| Response::new(Body::new("hello")));
    let mut slow: Vec<Client> = (0..2 * workers).map(|_| server.connect()).collect();
    for client in &mut slow {
        client.send("GET / HTTP/1.1\r\nhost: te");
    }
    assert_eq!(server.connect().get("/").text(), "hello");
    for client in &mut slow {
        client.send("st\r\n\r\n");
        assert_eq!(client.answer().text(), "hello");
    }
}

#[test]
fn as_many_idle_kept_alive_connections_as_workers_leave_room_for_one_more_client() {
    let workers = 2;
    let server = start(server().max_workers(workers), |_req, _info| Response::new(Body::new("hello")));
    let mut idle: Vec<Client> = (0..4 * workers).map(|_| server.connect()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(server.connect().get("/").text(), "hello");
}

/// More handlers than seats wait in `how`; another client is served all the while, and then they are.
fn others_are_served_while_handlers_wait(how: fn(&Gate)) {
    let sleepers = 4 * cores();
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(sleepers + 8), move |req: Request, _info| {
        if req.uri().path() == "/sleep" {
            called.send(()).expect("the test listens");
            how(&held);
            return Response::new(Body::new("slept"));
        }
        Response::new(Body::new("quick"))
    });

    let mut sleeping: Vec<Client> = (0..sleepers).map(|_| server.connect()).collect();
    for client in &mut sleeping {
        client.ask("/sleep");
    }
    for _ in 0..sleepers {
        calls.next();
    }
    let mut quick = server.connect();
    for _ in 0..20 {
        assert_eq!(quick.get("/quick").text(), "quick");
    }
    gate.open();
    for client in &mut sleeping {
        assert_eq!(client.answer().text(), "slept");
    }
}

#[test]
fn others_are_served_while_handlers_wait_announced() {
    others_are_served_while_handlers_wait(|gate| blocking(|| gate.wait()));
}

#[test]
fn others_are_served_while_handlers_wait_unannounced() {
    others_are_served_while_handlers_wait(Gate::wait);
}

#[test]
fn others_are_served_while_handlers_sleep_unannounced() {
    let server = start(server(), |req: Request, _info| {
        if req.uri().path() == "/sleep" {
            std::thread::sleep(Duration::from_millis(200));
        }
        Response::new(Body::new(req.uri().path().to_owned()))
    });
    let mut sleeping: Vec<Client> = (0..2 * cores()).map(|_| server.connect()).collect();
    for client in &mut sleeping {
        client.ask("/sleep");
    }
    let mut quick = server.connect();
    for _ in 0..20 {
        assert_eq!(quick.get("/quick").text(), "/quick");
    }
    for client in &mut sleeping {
        assert_eq!(client.answer().text(), "/sleep");
    }
}

#[test]
fn connections_move_while_every_seat_computes() {
    // Handlers that compute and never wait: heads are still read and refused, since the monitor seats a worker for them.
    let (called, calls) = signals();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let server = start(server(), move |_req, _info| {
        called.send(()).expect("the test listens");
        let end = Instant::now() + support::PATIENCE;
        while !stopped.load(SeqCst) && Instant::now() < end {
            std::hint::spin_loop();
        }
        Response::new(Body::new("computed"))
    });
    let mut computing: Vec<Client> = (0..cores()).map(|_| server.connect()).collect();
    for client in &mut computing {
        client.ask("/");
    }
    for _ in 0..cores() {
        calls.next();
    }
    let mut client = server.connect();
    client.send("TRACE / HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.answer().status, 405);
    stop.store(true, SeqCst);
    for client in &mut computing {
        assert_eq!(client.answer().text(), "computed");
    }
}

#[test]
fn handlers_that_compute_do_not_multiply() {
    let running = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (called, calls) = signals();
    let server = {
        let (running, stop) = (Arc::clone(&running), Arc::clone(&stop));
        start(server().max_workers(256), move |_req, _info| {
            running.fetch_add(1, SeqCst);
            called.send(()).expect("the test listens");
            let end = Instant::now() + support::PATIENCE;
            while !stop.load(SeqCst) && Instant::now() < end {
                std::hint::spin_loop();
            }
            Response::new(Body::new("computed"))
        })
    };
    let mut clients: Vec<Client> = (0..32 * cores()).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("/");
    }
    for _ in 0..cores() {
        calls.next();
    }
    // Heads are read and refused meanwhile, which takes the monitor's help each time: it has every opportunity to start more.
    for _ in 0..20 {
        let mut client = server.connect();
        client.send("TRACE / HTTP/1.1\r\nhost: test\r\n\r\n");
        assert_eq!(client.answer().status, 405);
    }
    let running = running.load(SeqCst);
    stop.store(true, SeqCst);
    assert!(running <= 2 * cores(), "{running} handlers compute on {} cores", cores());
    for client in &mut clients {
        assert_eq!(client.answer().text(), "computed");
    }
}

#[test]
fn one_greedy_connection_does_not_keep_another_waiting() {
    // A client that pipelines without end, and one that asks now and then.
    let server = start(server(), |req: Request, _info| Response::new(Body::new(req.uri().path().to_owned())));
    let greedy = server.connect();
    let mut sender = Client::over(greedy.stream().try_clone().expect("a second handle of the socket"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sending = std::thread::spawn(move || {
        let requests = "GET /greedy HTTP/1.1\r\nhost: test\r\n\r\n".repeat(500);
        // Once at least, also where this thread gets its turn when all is over.
        while sender.try_send(&requests).is_ok() && !stopped.load(SeqCst) {}
        sender.half_close();
    });
    let mut greedy = greedy;
    let reading = std::thread::spawn(move || greedy.until_closed().len());
    let mut modest = server.connect();
    for _ in 0..100 {
        assert_eq!(modest.get("/modest").text(), "/modest");
    }
    stop.store(true, SeqCst);
    sending.join().expect("the greedy client stops");
    assert!(reading.join().expect("its answers end") > 0);
}

#[test]
fn a_full_queue_answers_503_with_retry_after() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(1).queue(1, support::PATIENCE), move |_req, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        Response::new(Body::new("served"))
    });
    let mut first = server.connect();
    first.ask("/");
    calls.next();

    // One of these may wait in the queue; the others are told at once, while the worker is still busy.
    let (answered, answers) = signals();
    let late: Vec<_> = (0..3)
        .map(|_| {
            let mut client = server.connect();
            let answered = answered.clone();
            std::thread::spawn(move || {
                client.ask("/");
                let answer = client.answer();
                let retry_after = answer.header("retry-after").map(str::to_owned);
                answered.send((answer.status, retry_after)).expect("the test listens");
            })
        })
        .collect();
    for _ in 0..2 {
        let (status, retry_after) = answers.next();
        assert_eq!(status, 503);
        let seconds = retry_after.expect("RFC 9110 10.2.3: 503 says when to come back");
        assert!(seconds.parse::<u32>().is_ok(), "not a number of seconds: {seconds}");
    }
    gate.open();
    assert_eq!(first.answer().text(), "served");
    assert_eq!(answers.next().0, 200);
    for client in late {
        client.join().expect("answered");
    }
}

#[test]
fn a_request_that_waits_too_long_in_the_queue_gets_503() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(1).queue(16, Duration::from_millis(50)), move |_req, _info| {
        called.send(()).expect("the test listens");
        held.wait();
        Response::new(Body::new("served"))
    });
    let mut first = server.connect();
    first.ask("/");
    calls.next();
    let late = server.connect().get("/");
    assert_eq!(late.status, 503);
    assert!(late.header("retry-after").is_some());
    gate.open();
    assert_eq!(first.answer().text(), "served");
    // The worker is free again, and the client that was refused was never handed to it.
    assert!(calls.is_empty());
    assert_eq!(server.connect().get("/").text(), "served");
}

#[test]
fn waiting_ends_at_its_deadline() {
    let server = start(server(), |_req, _info| {
        let outcome = wait(pending::<()>(), Some(Instant::now() + Duration::from_millis(20)));
        Response::new(Body::new(format!("{outcome:?}")))
    });
    assert_eq!(server.connect().get("/").text(), "Err(Deadline)");
}

#[test]
fn waiting_returns_what_the_future_returns_even_at_a_deadline_that_has_passed() {
    let server = start(server(), |_req, _info| {
        let outcome = wait(std::future::ready(7), Some(Instant::now()));
        Response::new(Body::new(format!("{outcome:?}")))
    });
    assert_eq!(server.connect().get("/").text(), "Ok(7)");
}

#[test]
fn waiting_works_on_any_thread() {
    assert_eq!(wait(std::future::ready(7), None), Ok(7));
    let deadline = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(wait(pending::<()>(), deadline), Err(Interrupted::Deadline));
    assert_eq!(blocking(|| 7), 7);
}

#[test]
fn a_wait_woken_from_another_thread_goes_on() {
    let (sender, receiver) = std::sync::mpsc::channel::<tokio::sync::oneshot::Sender<u32>>();
    let server = start(server(), move |_req, _info| {
        let (reply, answer) = tokio::sync::oneshot::channel();
        sender.send(reply).expect("the test listens");
        Response::new(Body::new(format!("{:?}", wait(answer, None))))
    });
    let mut client = server.connect();
    for i in 0..200 {
        client.ask("/");
        let reply = receiver.recv_timeout(support::PATIENCE).expect("the handler is called");
        reply.send(i).expect("the handler waits");
        assert_eq!(client.answer().text(), format!("Ok(Ok({i}))"));
    }
}

/// What a handler's `pending` wait ends with when its client resets the connection.
fn interrupted_by_a_reset(how: fn() -> Result<(), Interrupted>) -> (Result<(), Interrupted>, bool) {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let handler = HandlerFn(move |exchange: Exchange| {
        called.send(()).expect("the test listens");
        let client = exchange.responder.client();
        let outcome = how();
        ended.send((outcome, client.is_gone())).expect("the test listens");
    });
    let server = start_handler(server(), handler);
    let mut client = server.connect();
    client.ask("/");
    calls.next();
    client.reset();
    ends.next()
}

#[test]
fn a_client_that_resets_its_connection_interrupts_its_handler() {
    let plain = || wait(pending(), None);
    assert_eq!(interrupted_by_a_reset(plain), (Err(Interrupted::ClientGone), true));
}

#[test]
fn a_client_that_resets_its_connection_interrupts_a_wait_inside_of_blocking() {
    let nested = || blocking(|| blocking(|| wait(pending(), None)));
    assert_eq!(interrupted_by_a_reset(nested), (Err(Interrupted::ClientGone), true));
}

#[test]
fn a_handler_may_wait_on_without_its_client() {
    fn alone() -> Result<(), Interrupted> {
        assert_eq!(wait(pending::<()>(), None), Err(Interrupted::ClientGone));
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(wait_alone(sleep_until(soon).expect("a worker"), None), Ok(()));
        wait_alone(pending(), Some(Instant::now() + Duration::from_millis(5)))
    }
    assert_eq!(interrupted_by_a_reset(alone), (Err(Interrupted::Deadline), true));
    assert_eq!(interrupted_by_a_reset(|| blocking(alone)), (Err(Interrupted::Deadline), true));
}

#[test]
fn a_client_that_goes_while_its_handler_blocks_gives_it_no_seat() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(4 * cores()), move |req: Request, _info| {
        if req.uri().path() == "/blocks" {
            called.send(()).expect("the test listens");
            blocking(|| held.wait());
        }
        Response::new(Body::new("quick"))
    });
    for _ in 0..3 * cores() {
        let mut client = server.connect();
        client.ask("/blocks");
        calls.next();
        client.reset();
    }
    assert_eq!(server.connect().get("/").text(), "quick");
    gate.open();
    assert_eq!(server.connect().get("/").text(), "quick");
}

#[test]
fn handlers_sleep_as_long_as_they_say_on_the_timers_of_their_server() {
    assert!(sleep_until(Instant::now()).is_none(), "this is no worker");
    let server = start(server().max_workers(200), |_req, _info| {
        let at = Instant::now() + Duration::from_millis(20);
        let slept = wait(sleep_until(at).expect("a worker"), None);
        let early = at.saturating_duration_since(Instant::now());
        let past = wait(sleep_until(at).expect("a worker"), Some(at));
        Response::new(Body::new(format!("{slept:?} {early:?} {past:?}")))
    });
    let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("/");
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "Ok(()) 0ns Ok(())");
    }
}

#[test]
fn a_sleep_that_ends_after_the_deadline_is_cut_at_it() {
    let server = start(server(), |_req, _info| {
        let now = Instant::now();
        let cut =
            wait(sleep_until(now + Duration::from_secs(3600)).expect("a worker"), Some(now + Duration::from_millis(5)));
        Response::new(Body::new(format!("{cut:?}")))
    });
    assert_eq!(server.connect().get("/").text(), "Err(Deadline)");
}

#[test]
fn a_handler_that_computes_can_ask_whether_its_client_is_gone() {
    let (called, calls) = signals();
    let (ended, ends) = signals();
    let handler = HandlerFn(move |exchange: Exchange| {
        let client = exchange.responder.client();
        assert!(!client.is_gone());
        called.send(()).expect("the test listens");
        until("the client is gone", || client.is_gone());
        ended.send(()).expect("the test listens");
    });
    let server = start_handler(server(), handler);
    let mut client = server.connect();
    client.ask("/");
    calls.next();
    client.reset();
    ends.next();
}

#[test]
fn clients_that_go_away_while_they_wait_in_the_queue_do_no_harm() {
    let (called, calls) = signals();
    let gate = Gate::default();
    let held = gate.clone();
    let server = start(server().max_workers(1).queue(64, support::PATIENCE), move |req: Request, _info| {
        if req.uri().path() == "/hold" {
            called.send(()).expect("the test listens");
            held.wait();
        }
        Response::new(Body::new("served"))
    });
    let mut first = server.connect();
    first.ask("/hold");
    calls.next();
    for _ in 0..32 {
        let mut client = server.connect();
        client.ask("/");
        client.reset();
    }
    gate.open();
    assert_eq!(first.answer().text(), "served");
    assert_eq!(server.connect().get("/").text(), "served");
}
