//! What is ours of `wasi:sockets`: making sockets, dropping those of 0.2, and all of name look-up. The rest is wasmtime-wasi's, which asks
//! [`Network`](super::network::Network) before it connects.
//!
//! Sockets that are there are counted (`descriptors.rs`). Called on the worker that runs the guest. Nothing here waits: a look-up is polled, and `blocking.rs` waits for its pollable.

use std::{
    future::poll_fn,
    net::IpAddr,
    task::{Context, Poll, Waker},
};

use wasmtime::{
    Result,
    component::{Accessor, Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    p2::{
        DynPollable, Pollable, TcpSocket, UdpSocket,
        bindings::sockets::{
            network::{ErrorCode, IpAddress, IpAddressFamily, Network},
            tcp_create_socket::Host as _,
        },
        subscribe,
    },
    p3::bindings::sockets::{ip_name_lookup as lookup03, types as types03},
    sockets::{self, WasiSocketsView as _},
};

use super::{
    instance::State,
    network::{LookUp, LookUpError},
    resolver::ResolveError,
};

/// The versions are wasmtime-wasi's; guests of all 0.2.x find them.
const TCP_CREATE_SOCKET: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP_CREATE_SOCKET: &str = "wasi:sockets/udp-create-socket@0.2.12";
const IP_NAME_LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

/// What a denial says.
const UDP_SOCKET: &str = "a UDP socket";

/// Replaces `create-tcp-socket` and `create-udp-socket` in a linker that has wasmtime-wasi's: who may not connect anywhere is told so here
/// already, before there is an address that could be; and UDP is for nobody.
pub(crate) fn link_create(linker: &mut Linker<State>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.instance(TCP_CREATE_SOCKET)?.func_wrap(
        "create-tcp-socket",
        |mut store, (family,): (IpAddressFamily,)| {
            let state: &mut State = store.data_mut();
            Ok((if state.network().has_tcp() { create_tcp(state, family)? } else { Err(ErrorCode::AccessDenied) },))
        },
    )?;
    linker.instance(TCP)?.resource("tcp-socket", ResourceType::host::<TcpSocket>(), |mut store, handle| {
        let state: &mut State = store.data_mut();
        // Its streams are its children: none is left.
        state.table.delete(Resource::<TcpSocket>::new_own(handle))?;
        state.opened.close(handle);
        Ok(())
    })?;
    linker.instance(UDP_CREATE_SOCKET)?.func_wrap("create-udp-socket", |mut store, (_,): (IpAddressFamily,)| {
        let state: &mut State = store.data_mut();
        state.network().refuse(UDP_SOCKET);
        Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn create_tcp(state: &mut State, family: IpAddressFamily) -> Result<Result<Resource<TcpSocket>, ErrorCode>> {
    let Some(place) = state.place() else { return Ok(Err(ErrorCode::NewSocketLimit)) };
    match state.sockets().create_tcp_socket(family) {
        Ok(socket) => {
            state.opened.open_as(socket.rep(), place);
            Ok(Ok(socket))
        }
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

/// The same of 0.3.
pub(crate) fn link_create_03(linker: &mut Linker<State>) -> Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:sockets/types@0.3.0")?;
    types.func_wrap("[static]udp-socket.create", |mut store, (_,): (types03::IpAddressFamily,)| {
        let state: &mut State = store.data_mut();
        state.network().refuse(UDP_SOCKET);
        Ok((Err::<Resource<sockets::UdpSocket>, _>(types03::ErrorCode::AccessDenied),))
    })?;
    types.func_wrap("[static]tcp-socket.create", |mut store, (family,): (types03::IpAddressFamily,)| {
        let state: &mut State = store.data_mut();
        if !state.network().has_tcp() {
            return Ok((Err(types03::ErrorCode::AccessDenied),));
        }
        let Some(place) = state.place() else { return Ok((Err(types03::ErrorCode::OutOfMemory),)) };
        Ok((match types03::HostTcpSocket::create(&mut state.sockets(), family) {
            Ok(socket) => {
                state.opened.keep(place);
                Ok(socket)
            }
            Err(error) => Err(error.downcast()?),
        },))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Adds `wasi:sockets/ip-name-lookup` to a linker.
pub(crate) fn link_name_lookup(linker: &mut Linker<State>) -> Result<()> {
    let mut lookup = linker.instance(IP_NAME_LOOKUP)?;
    lookup.resource("resolve-address-stream", ResourceType::host::<Answers>(), |mut store, handle| {
        store.data_mut().table.delete(Resource::<Answers>::new_own(handle))?;
        Ok(())
    })?;
    lookup.func_wrap("resolve-addresses", |mut store, (network, name): (Resource<Network>, String)| {
        let state: &mut State = store.data_mut();
        state.table.get(&network)?;
        Ok((match state.network().look_up(&name) {
            Ok(look_up) => Ok(state.table.push(Answers::new(look_up))?),
            Err(LookUpError::NoName) => Err(ErrorCode::InvalidArgument),
            Err(LookUpError::Denied) => Err(ErrorCode::AccessDenied),
        },))
    })?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store, (answers,): (Resource<Answers>,)| Ok((store.data_mut().table.get_mut(&answers)?.next(),)),
    )?;
    lookup.func_wrap("[method]resolve-address-stream.subscribe", |mut store, (answers,): (Resource<Answers>,)| {
        let pollable: Resource<DynPollable> = subscribe(&mut store.data_mut().table, answers)?;
        Ok((pollable,))
    })
}

/// Replaces look-ups in a linker that has wasmtime-wasi's `wasi:sockets` of 0.3.
pub(crate) fn link_name_lookup_03(linker: &mut Linker<State>) -> Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:sockets/ip-name-lookup@0.3.0")?.func_wrap_concurrent(
        "resolve-addresses",
        |accessor: &Accessor<State>, (name,): (String,)| {
            let look_up = accessor.with(|mut access| access.get().network().look_up(&name));
            Box::pin(async move { Ok((resolve_03(look_up).await,)) })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

async fn resolve_03(look_up: Result<LookUp, LookUpError>) -> Result<Vec<types03::IpAddress>, lookup03::ErrorCode> {
    use lookup03::ErrorCode;
    let look_up = look_up.map_err(|error| match error {
        LookUpError::NoName => ErrorCode::InvalidArgument,
        LookUpError::Denied => ErrorCode::AccessDenied,
    })?;
    let found = look_up.await.map_err(|error| match error {
        ResolveError::NotFound => ErrorCode::NameUnresolvable,
        ResolveError::Temporary => ErrorCode::TemporaryResolverFailure,
        ResolveError::Permanent => ErrorCode::PermanentResolverFailure,
    })?;
    Ok(found.into_iter().map(Into::into).collect())
}

/// The `resolve-address-stream` resource.
enum Answers {
    Pending(LookUp),
    Failed(ResolveError),
    Found(std::vec::IntoIter<IpAddr>),
}

impl Answers {
    fn new(look_up: LookUp) -> Self {
        let mut answers = Self::Pending(look_up);
        // It begins now, though whoever asks may be at something else first.
        let _ = answers.poll(&mut Context::from_waker(Waker::noop()));
        answers
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Pending(look_up) = self {
            let Poll::Ready(found) = look_up.as_mut().poll(cx) else { return Poll::Pending };
            *self = found.map_or_else(Self::Failed, |addresses| Self::Found(addresses.into_iter()));
        }
        Poll::Ready(())
    }

    /// The next address, none after the last.
    fn next(&mut self) -> Result<Option<IpAddress>, ErrorCode> {
        let _ = self.poll(&mut Context::from_waker(Waker::noop()));
        match self {
            Self::Pending(_) => Err(ErrorCode::WouldBlock),
            Self::Found(addresses) => Ok(addresses.next().map(IpAddress::from)),
            Self::Failed(ResolveError::NotFound) => Err(ErrorCode::NameUnresolvable),
            Self::Failed(ResolveError::Temporary) => Err(ErrorCode::TemporaryResolverFailure),
            Self::Failed(ResolveError::Permanent) => Err(ErrorCode::PermanentResolverFailure),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Answers {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn every_way_to_fail_has_its_code() {
        assert!(matches!(Answers::new(Box::pin(pending())).next(), Err(ErrorCode::WouldBlock)));
        for (error, code) in [
            (ResolveError::NotFound, ErrorCode::NameUnresolvable),
            (ResolveError::Temporary, ErrorCode::TemporaryResolverFailure),
            (ResolveError::Permanent, ErrorCode::PermanentResolverFailure),
        ] {
            let mut answers = Answers::new(Box::pin(ready(Err(error))));
            for _ in 0..2 {
                assert_eq!(answers.next().err(), Some(code));
            }
        }
    }

    #[test]
    fn addresses_come_in_their_order_and_then_none() {
        let addresses = ["::1", "127.0.0.1"].map(|text| text.parse().expect("an address"));
        let mut answers = Answers::new(Box::pin(ready(Ok(addresses.to_vec()))));
        assert!(matches!(answers.next(), Ok(Some(IpAddress::Ipv6((0, 0, 0, 0, 0, 0, 0, 1))))));
        assert!(matches!(answers.next(), Ok(Some(IpAddress::Ipv4((127, 0, 0, 1))))));
        assert!(matches!((answers.next(), answers.next()), (Ok(None), Ok(None))));
    }
}
