//! What handlers ask of others runs on the same workers and the same reactor: sockets to elsewhere, timers, and futures that go on by themselves.

mod support;

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use astra_server::{Body, BoxError, Executor, Response, TcpStream, wait};
use hyper::rt::{Read as _, ReadBuf, Write as _};
use support::{PATIENCE, Running, pattern, server, signals, start};

/// Somebody else's server: takes one connection.
fn elsewhere(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        serve(stream);
    });
    (address, thread)
}

/// A server whose handler answers with what `ask` comes to.
fn asking<F>(ask: impl Fn(Executor) -> F + Send + Sync + 'static) -> Running
where
    F: Future<Output = Result<String, BoxError>>,
{
    let server = server();
    let executor = server.executor();
    start(server, move |_req, _info| {
        let answer = wait(ask(executor.clone()), Some(Instant::now() + PATIENCE)).expect("it ends in time");
        Response::new(Body::new(answer.unwrap_or_else(|error| format!("error: {error}"))))
    })
}

async fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn read_some(stream: &mut TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut buffer = ReadBuf::new(&mut bytes);
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, buffer.unfilled())).await?;
    let filled = buffer.filled().len();
    bytes.truncate(filled);
    Ok(bytes)
}

async fn read_to_end(stream: &mut TcpStream, at_once: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let some = read_some(stream, at_once).await?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

#[test]
fn a_handler_talks_to_somebody_else() {
    let (address, thread) = elsewhere(|mut stream| {
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).expect("the question");
        stream.write_all(&[&asked[..], b" yourself"].concat()).expect("the answer");
    });
    let server = asking(move |executor| async move {
        let mut stream = executor.connect(address).await?;
        write_all(&mut stream, b"hello").await?;
        Ok(String::from_utf8(read_to_end(&mut stream, 100).await?)?)
    });
    assert_eq!(server.connect().get("/").text(), "hello yourself");
    thread.join().expect("no panic");
}

#[test]
fn what_comes_byte_by_byte_is_read_however_little_is_read_at_once() {
    for at_once in [1, 7, 1 << 20] {
        let (address, thread) = elsewhere(|mut stream| {
            stream.set_nodelay(true).expect("a socket option");
            for byte in pattern(1000) {
                stream.write_all(&[byte]).expect("a byte goes out");
            }
        });
        let server = asking(move |executor| async move {
            let mut stream = executor.connect(address).await?;
            Ok((read_to_end(&mut stream, at_once).await? == pattern(1000)).to_string())
        });
        assert_eq!(server.connect().get("/").text(), "true", "{at_once} at once");
        thread.join().expect("no panic");
    }
}

#[test]
fn a_peer_that_reads_late_gets_everything() {
    const LENGTH: usize = 8 << 20;
    let (tell, told) = signals();
    let (address, thread) = elsewhere(move |mut stream| {
        // More than the buffers of both hold is under way: the writer waits.
        told.next();
        let mut read = Vec::new();
        stream.read_to_end(&mut read).expect("all of it");
        assert!(read == pattern(LENGTH));
        stream.write_all(&read).expect("it goes back");
    });
    let server = asking(move |executor| {
        let tell: Sender<()> = tell.clone();
        async move {
            let mut stream = executor.connect(address).await?;
            let all = pattern(LENGTH);
            let mut sent = 0;
            poll_fn(|cx| {
                while sent < all.len() {
                    match Pin::new(&mut stream).poll_write(cx, &all[sent..])? {
                        Poll::Ready(written) => sent += written,
                        Poll::Pending => {
                            let _ = tell.send(());
                            return Poll::Pending;
                        }
                    }
                }
                Poll::Ready(io::Result::Ok(()))
            })
            .await?;
            poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await?;
            Ok((read_to_end(&mut stream, 1 << 16).await? == all).to_string())
        }
    });
    assert_eq!(server.connect().get("/").text(), "true");
    thread.join().expect("no panic");
}

#[test]
fn who_cannot_be_reached_is_an_error() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let server = asking(move |executor| async move {
        Ok(format!("{:?}", executor.connect(address).await.map_err(|error| error.kind()).err()))
    });
    assert_eq!(server.connect().get("/").text(), "Some(ConnectionRefused)");
}

#[test]
fn a_spawned_future_goes_on_while_nobody_asks() {
    let (tell, told) = signals();
    let (address, thread) = elsewhere(|mut stream| {
        stream.write_all(b"late").expect("it goes out");
    });
    let server = asking(move |executor| {
        let tell: Sender<Vec<u8>> = tell.clone();
        let inner = executor.clone();
        executor.spawn(async move {
            inner.sleep_until(Instant::now() + Duration::from_millis(1)).await;
            let mut stream = inner.connect(address).await.expect("it listens");
            let _ = tell.send(read_to_end(&mut stream, 10).await.expect("it is there"));
        });
        async { Ok("spawned".to_owned()) }
    });
    assert_eq!(server.connect().get("/").text(), "spawned");
    assert_eq!(told.next(), b"late");
    thread.join().expect("no panic");
}

#[test]
fn what_a_handler_asks_for_does_not_wait_for_the_end_of_its_computing() {
    let server = asking(|executor| {
        let is_done = Arc::new(AtomicBool::new(false));
        let done = is_done.clone();
        executor.spawn(async move { done.store(true, SeqCst) });
        let end = Instant::now() + PATIENCE;
        while !is_done.load(SeqCst) && Instant::now() < end {
            std::hint::spin_loop();
        }
        std::future::ready(Ok(is_done.load(SeqCst).to_string()))
    });
    assert_eq!(server.connect().get("/").text(), "true");
}

#[test]
fn a_future_that_panics_costs_nothing_but_itself() {
    let server = asking(|executor| {
        executor.spawn(async { panic!("on purpose") });
        async { Ok("spawned".to_owned()) }
    });
    for _ in 0..4 {
        assert_eq!(server.connect().get("/").text(), "spawned");
    }
}

/// Sends when it is dropped.
struct Tells(Sender<()>);

impl Drop for Tells {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

#[test]
fn what_waits_is_dropped_when_the_server_ends() {
    let ((tell, told), (accepted, accepts)) = (signals(), signals());
    let (address, thread) = elsewhere(move |mut stream| {
        accepted.send(()).expect("the test listens");
        // The end of the connection, and not a time-out.
        assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    });
    let server = asking(move |executor| {
        let (tells, inner) = (Tells(tell.clone()), executor.clone());
        executor.spawn(async move {
            let mut stream = inner.connect(address).await.expect("it listens");
            let _ = read_some(&mut stream, 1).await;
            drop(tells);
        });
        let (tells, inner) = (Tells(tell.clone()), executor.clone());
        executor.spawn(async move {
            inner.sleep_until(Instant::now() + Duration::from_secs(3600)).await;
            drop(tells);
        });
        async { Ok("spawned".to_owned()) }
    });
    assert_eq!(server.connect().get("/").text(), "spawned");
    accepts.next();
    assert!(server.into_handle().shutdown(PATIENCE).is_none());
    told.next();
    told.next();
    thread.join().expect("no panic");
}

#[test]
fn without_a_server_that_runs_nothing_runs() {
    let (tell, told) = signals();
    for executor in [Executor::default(), server().executor()] {
        let tells = Tells(tell.clone());
        executor.spawn(async move { drop(tells) });
        told.next();
        let error = wait(executor.connect((Ipv4Addr::LOCALHOST, 1).into()), None).expect("no deadline").err();
        assert_eq!(error.map(|error| error.kind()), Some(io::ErrorKind::NotConnected));
    }
}
