#![doc = include_str!("../README.md")]
//!
//! # Rooms
//!
//! | file | owns |
//! |---|---|
//! | `server`, `options`, `counts` | binding, what can be set, starting, the [`Handle`]; what an operator wants to know |
//! | `listener`, `peers`, `proxy`, `socket` | accepting, which never dies; how many connections a peer has; who a proxy's client is; TCP and Unix sockets as one |
//! | `connection`, `link`, `stream`, `limits`, `frames`, `doubt` | one connection: protocol, deadlines, close; its socket and counters; that socket for hyper; what its client may do; HTTP/2 frames that are counted; whether a request of HTTP/1 ends where it seems to |
//! | `executor`, `tcp_stream` | other futures on the same workers (HTTP/2 streams, clients that handlers use); sockets to elsewhere |
//! | `tls` | the layer between that socket and hyper (`no_tls` in its place without the feature) |
//! | `exchange`, `slot`, `refusal`, `service` | one request: hyper's service, what both sides share, what we answer ourselves, what a [`Handler`] or [`Service`] sees |
//! | `places`, `told` | how many of a connection's requests are queued; what became of its answers |
//! | `upload`, `body`, `outgoing`, `http` | what arrives before a handler starts; bodies for blocking code, hyper's end of them, the types both speak |
//! | `workers`, `seats`, `lanes`, `wait`, `monitor` | the threads; who may run and what next; whose turn it is; giving up a seat; the thread that ticks |
//! | `reactor`, `timer`, `readiness`, `run_state`, `parker` | events, deadlines, and the three small state machines; how often a thread has slept |

mod body;
mod connection;
mod counts;
mod doubt;
mod exchange;
mod executor;
mod frames;
mod http;
mod lanes;
mod limits;
mod link;
mod listener;
mod monitor;
mod options;
mod outgoing;
mod parker;
mod peers;
mod places;
mod proxy;
mod reactor;
mod readiness;
mod refusal;
mod run_state;
mod seats;
mod server;
mod service;
mod slot;
mod socket;
mod stream;
mod sync;
mod tcp_stream;
mod timer;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod told;
mod upload;
mod wait;
mod workers;

#[cfg(fuzzing)]
pub mod fuzzing;

pub use crate::body::{Body, BodyReader, BodyWriter, BoxError};
pub use crate::counts::{Counters, Counts, Event};
pub use crate::exchange::{Admission, Client, Exchange, Handler, Refused, Responder};
pub use crate::executor::Executor;
pub use crate::http::{ConnectionInfo, Request, Response, ResponseBuilder, Service, TlsInfo};
pub use crate::lanes::Lane;
pub use crate::server::{Handle, ListeningSocket, Server, Sockets};
pub use crate::slot::Gone;
pub use crate::tcp_stream::TcpStream;
pub use crate::told::{Cut, Told};
pub use crate::wait::{Interrupted, blocking, flush, give_way, sleep_until, wait, wait_alone};
pub use bytes::Bytes;
