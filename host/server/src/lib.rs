#![doc = include_str!("../README.md")]
//!
//! # Rooms
//!
//! | file | owns |
//! |---|---|
//! | `server`, `options` | binding, what can be set, starting, the [`Handle`] |
//! | `listener`, `peers`, `socket` | accepting, which never dies; how many connections a peer has; TCP and Unix sockets as one |
//! | `connection`, `link` | one connection: protocol, deadlines, close; its socket and counters |
//! | `executor`, `tcp_stream` | other futures on the same workers (HTTP/2 streams, clients that handlers use); sockets to elsewhere |
//! | `exchange`, `slot`, `refusal`, `service` | one request: hyper's service, what both sides share, what we answer ourselves, what a [`Handler`] or [`Service`] sees |
//! | `upload`, `body`, `outgoing`, `http` | what arrives before a handler starts; bodies for blocking code, hyper's end of them, the types both speak |
//! | `workers`, `seats`, `lanes`, `wait`, `monitor` | the threads; who may run and what next; the queues of requests; giving up a seat; the thread that ticks |
//! | `reactor`, `timer`, `readiness`, `run_state`, `parker` | events, deadlines, and the three small state machines |

mod body;
mod connection;
mod exchange;
mod executor;
mod http;
mod lanes;
mod link;
mod listener;
mod monitor;
mod options;
mod outgoing;
mod parker;
mod peers;
mod reactor;
mod readiness;
mod refusal;
mod run_state;
mod seats;
mod server;
mod service;
mod slot;
mod socket;
mod sync;
mod tcp_stream;
mod timer;
mod upload;
mod wait;
mod workers;

pub use crate::body::{Body, BodyReader, BodyWriter, BoxError};
pub use crate::exchange::{Client, Exchange, Handler, Responder};
pub use crate::executor::Executor;
pub use crate::http::{ConnectionInfo, Request, Response, ResponseBuilder, Service};
pub use crate::lanes::Lane;
pub use crate::server::{Handle, Server, Sockets};
pub use crate::tcp_stream::TcpStream;
pub use crate::wait::{Interrupted, blocking, flush, sleep_until, wait};
pub use bytes::Bytes;
