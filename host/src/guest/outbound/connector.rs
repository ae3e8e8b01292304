//! How a rule's requests get a connection: a name is looked up once, here, and connected to is only what the rule allows of what was found.
//!
//! The sockets are the server's reactor's, so that what comes from there reaches the guest's worker without another thread between them.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use astra_server::{Executor, TcpStream};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

use super::error::NoAddress;
use crate::guest::{OutboundRule, denials::Denials, destination::default_port, resolver::Resolver};

/// How long names may take, whatever the guest says.
const RESOLVE: Duration = Duration::from_secs(5);
/// How long an address may take to answer before the next one is tried beside it (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of a name that are tried.
const MOST_TRIED: usize = 16;

/// Connects to where a rule says.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) rule: Arc<OutboundRule>,
    pub(super) resolver: Resolver,
    pub(super) denials: Arc<Denials>,
    pub(super) executor: Executor,
}

impl Connector {
    /// The addresses out of `addresses`, which are those of `host`, that may be connected to.
    ///
    /// # Errors
    /// There are none.
    pub(super) fn only_allowed(&self, host: &str, mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, NoAddress> {
        let found = addresses.first().copied();
        addresses.retain(|address| self.rule.allows(*address));
        if let (true, Some(found)) = (addresses.is_empty(), found) {
            let rule = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
                // The first rule that names it counts, which is this one.
                Ok(_) => format!(r#"outbound = ["{}://{host}:PORT"], before `{}`"#, self.rule.scheme, self.rule),
                Err(_) => format!(r#"outbound = [{{ url = "{}", private = true }}]"#, self.rule),
            };
            self.denials.tell(&format!("a request to {host}, which is not public ({found})"), &rule);
            return Err(NoAddress::Prohibited);
        }
        Ok(addresses)
    }

    async fn connect(self, to: Uri) -> Result<Tcp, Failed> {
        let (Some(scheme), Some(host)) = (to.scheme(), to.host()) else { return Err("it has no host".into()) };
        let name = host.trim_matches(['[', ']']);
        let found = tokio::time::timeout(RESOLVE, self.resolver.resolve(name)).await;
        let found = found.map_err(|_elapsed| NoAddress::TimedOut)?.map_err(NoAddress::Unresolved)?;
        let allowed = self.only_allowed(host, found)?;
        let port = to.port_u16().unwrap_or_else(|| default_port(scheme));
        let addresses = in_turn(allowed).map(|address| SocketAddr::new(address, port));
        Ok(Tcp(first_of(&self.executor, addresses).await?))
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Tcp;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Tcp, Failed>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        Box::pin(self.clone().connect(to))
    }
}

/// One family after the other, beginning with that of the best (RFC 8305 §4).
fn in_turn(addresses: Vec<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let best = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (best, others): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv4() == best);
    let (mut best, mut others) = (best.into_iter(), others.into_iter());
    let pairs = std::iter::from_fn(move || {
        let pair = [best.next(), others.next()];
        pair.iter().any(Option::is_some).then_some(pair)
    });
    pairs.flatten().flatten().take(MOST_TRIED)
}

type Attempt<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Connects to the first of `addresses` that answers; each next one is tried when those before it have failed, or are slow.
async fn first_of(executor: &Executor, mut addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let (mut attempts, mut first_error) = (Vec::<Attempt<'_>>::new(), None);
    let mut next = addresses.next();
    let mut slow = pin!(executor.sleep_until(Instant::now()));
    poll_fn(|cx| {
        loop {
            for at in (0..attempts.len()).rev() {
                match attempts[at].as_mut().poll(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(connected)) => return Poll::Ready(Ok(connected)),
                    Poll::Ready(Err(error)) => {
                        drop(attempts.swap_remove(at));
                        first_error.get_or_insert(error);
                    }
                }
            }
            match next {
                Some(address) if attempts.is_empty() || slow.as_mut().poll(cx).is_ready() => {
                    attempts.push(Box::pin(executor.connect(address)));
                    slow.set(executor.sleep_until(Instant::now() + STAGGER));
                    next = addresses.next();
                }
                None if attempts.is_empty() => {
                    return Poll::Ready(Err(first_error
                        .take()
                        .unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())));
                }
                _ => return Poll::Pending,
            }
        }
    })
    .await
}

/// A connection without TLS, or what is below it.
pub(super) struct Tcp(TcpStream);

impl Connection for Tcp {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Tcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Tcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use astra_server::{Handle, Response, Server};
    use socket2::{Domain, Socket, Type};

    use super::*;

    fn addresses(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|address| address.parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns_and_the_best_address_is_first() {
        for (found, tried) in [
            ("", ""),
            ("10.0.0.1", "10.0.0.1"),
            ("::1 ::2 10.0.0.1 10.0.0.2 10.0.0.3", "::1 10.0.0.1 ::2 10.0.0.2 10.0.0.3"),
            ("10.0.0.1 ::1 ::2", "10.0.0.1 ::1 ::2"),
        ] {
            assert_eq!(in_turn(addresses(found)).collect::<Vec<_>>(), addresses(tried), "{found}");
        }
    }

    #[test]
    fn a_name_with_too_many_addresses_does_not_take_too_many_sockets() {
        let found = (0..=u8::MAX).map(|last| Ipv4Addr::new(10, 0, 0, last).into()).collect();
        assert_eq!(in_turn(found).count(), MOST_TRIED);
    }

    /// A server for its reactor.
    fn running() -> (Handle, Executor) {
        let server = Server::default();
        let executor = server.executor();
        (server.start_service(|_req, _info| Response::new(astra_server::Body::empty())).expect("starts"), executor)
    }

    fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let (_running, executor) = running();
        let first = first_of(&executor, addresses.iter().copied());
        astra_server::wait(first, Some(Instant::now() + Duration::from_secs(20))).expect("it ends in time")
    }

    fn listening(backlog: i32) -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        socket.listen(backlog).expect("listens");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        (socket, address)
    }

    fn refusing() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("it is bound")
    }

    #[test]
    fn an_address_that_refuses_is_passed_over() {
        let (_socket, address) = listening(8);
        assert!(connect(&[refusing(), refusing(), address]).is_ok());
        let error = connect(&[refusing(), refusing()]).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[]).is_err());
    }

    #[test]
    fn an_address_that_does_not_answer_does_not_hold_up_the_next() {
        // One connection fills its queue; what comes after that is not answered.
        let (_full, silent) = listening(0);
        let _queued = std::net::TcpStream::connect(silent).expect("there is room for one");
        let (_socket, address) = listening(8);
        assert!(connect(&[silent, address]).is_ok());
    }
}
