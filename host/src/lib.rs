//! astra-host serves HTTP with WebAssembly guests. One request = one fresh guest instance = one thread while it runs;
//! a guest is plain blocking code.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use astra_host::Host;
//!
//! # fn main() -> Result<(), astra_host::HostError> {
//! let host = Host::builder()
//!     .module("hello.wasm")
//!     .listen("127.0.0.1:0")
//!     .env("GREETING", "Hello")
//!     .deadline(Duration::from_secs(5))
//!     .start()?;
//! println!("listening on {:?}", host.local_addrs());
//! // …until it is time to go:
//! host.shutdown(Duration::from_secs(30));
//! # Ok(())
//! # }
//! ```
//!
//! # The rooms, in the order a request meets them
//!
//! | room | what it owns |
//! |---|---|
//! | crate `astra_server` | sockets, HTTP, workers and seats; hands each request to [`dispatch`](self) on a worker |
//! | `dispatch` | the spine: request id, route, revision, forwarding headers, guest, answer |
//! | `listeners`, `unix_socket` | the sockets that requests come in by: bound, passed on, or inherited; a Unix socket's file |
//! | `certificates`, `validity` | what TLS listeners show, read again when a file changes; whether its time has come, or is over |
//! | `table`, [`router`], `revision` | what every request reads: routes, who serves each handler; pinning a revision |
//! | `in_flight` | the requests that are in guests now, to be listed and cut |
//! | `request_id`, [`forwarded`] | pure: which headers of the request are the host's to set |
//! | [`guest`] | one request in one guest, of any kind: store, deadline, waits, bodies, outcome; knows no sockets and no routes |
//! | [`failure`] | why a request failed: status, public text, log text |
//! | `short_text` | how much of what guests and clients choose gets into failures, events and the log |
//! | `access_log` | what one request's line will say, from its arrival until its guest has ended and its response has gone out |
//! | `clock` | noticing that the machine's clock was set |
//! | [`log_line`], [`log_writer`] | what lines look like; the one thread that writes them |
//!
//! # The rooms, in the order a swap meets them
//!
//! | room | what it owns |
//! |---|---|
//! | [`control`] | the control socket: HTTP for operators, and the command line's end of it |
//! | `watch`, `watcher`, [`package`] | noticing that a module or its sources have changed; building Cargo packages |
//! | [`operator`], [`operator_error`] | everything that can be done to a running host, and why it was not done |
//! | `gate`, `compiler` | what a module has to pass before a request meets it; compiling in a process of its own |
//! | `handler`, `table` | which revision is live, which has a share, which are kept; published by one pointer |
//! | `farewell`, `guard`, `operator/steward` | draining and freeing; taking back what fails; the thread that sees to both |
//! | `state_dir` | what outlives a restart |
//! | `take_over`, `operator/upgrade` | what passes from a running host to a new process that takes its place |
//! | [`receipt`], [`events`], [`status`] | what is told about all that |
//!
//! Before the first request there are [`cli`] (the only place that knows clap), [`config_file`] and [`config`] (TOML
//! and flags into plain checked values) and [`host`] (builds all of the above, starts it, shuts it down). Dependencies
//! point down only: `cli` → `host` → `control`, `dispatch` → `operator` → `gate`, `handler` → `table` → `guest` →
//! `failure`, `config`.
//!
//! State is of three kinds and never mixed: host-wide (`Engine`, `Dispatch`, `Operator`, `Log`), revision-wide
//! (`Revision`, `LoadedModule`) and request-wide (the guest's store, `Ongoing`, `Visit`, `Reply`).
//!
//! # Kinds of guest
//!
//! A module is one of five programs (`guest/program.rs`), told by its exports: a handler of WASI 0.2 or 0.3, or a CGI
//! program of 0.1 (a core module), 0.2 or 0.3. There are two worlds for them (`guest/engine.rs`), each wasmtime set up
//! in its own way with its own linker: guests of 0.2 are called and return, without fibers; those of 0.3 have an event
//! loop, which runs on the worker of the request (`guest/concurrent.rs`). Core modules get WASI 0.1 as it is
//! (`guest/preview1.rs`), each function behind the same wait. Whatever the kind, the answer goes through the same pipe
//! (`guest/body.rs`, `guest/answer.rs`), so that streaming, limits and outcomes do not depend on it.
//!
//! Most components that Rust's toolchain makes do nothing but wrap one core module. Handlers of WASI 0.2 that do are instantiated as that
//! module, and the host speaks the canonical ABI to it (`guest/direct/`): one instance for three, and calls without wasmtime's machinery for
//! components, which were a third of a short request. A component is unwrapped only if nobody can tell the difference: its shim, its
//! fix-ups and each of its imports are looked at, and whatever is not understood stays a component.
//!
//! # What guests ask of others
//!
//! A rule names a destination, and what the name leads to is judged again (`guest/destination.rs`): for outgoing HTTP
//! where a connection is made, and to exactly the addresses that were judged (`guest/outbound/connector.rs`); for raw TCP
//! where a guest connects (`guest/network.rs`). Each rule has its own pool of connections (`guest/outbound/client.rs`),
//! which belongs to the handler's grants and not to a revision. A connection is a task of the server's workers, beside
//! those of clients, and its socket is on the same reactor; a guest's worker polls its exchange itself once that is on a
//! connection. Only raw sockets, and the threads for look-ups, are Tokio's.
//!
//! # Memories
//!
//! wasmtime's pool is not used. Its two ways to make a memory fresh are to copy all of it back, and to ask the kernel which pages were
//! written in a way that misses some (bytecodealliance/wasmtime#14357). Here a module is parted at load: what its memory starts with
//! becomes an image (`guest/memory/image.rs`), the rest is compiled. Each module has memories of its own, which are mapped from the image, lent
//! to one guest after the other, and between them made fresh page by page (`guest/memory/slot.rs`). So what a request costs does not depend on
//! how much memory its guest has, but on how much it and those before it write. Tables and instances are allocated anew, and how large an instance may
//! be is looked at when its module is loaded (`guest/instance_size.rs`). This is where most of this crate's `unsafe` is;
//! the rest are stacks for guests of WASI 0.3 (`guest/stacks.rs`), what both are mapped by (`guest/mapping.rs`) and machine code that the operator
//! trusts (`guest/loaded_module.rs`), and the parameters of calls that go without Rust's types (`guest/direct/`).
//!
//! # Swapping without dropping
//!
//! A request reads one pointer, pins the revision it found, and looks whether the pointer is still the same; a swap
//! exchanges the pointer and then counts pins. So either the request sees the new table or the swap sees the request,
//! and "drained" is exact. What comes before the exchange (building, compiling in a niced process, linking, one
//! instance, the probe) can fail without a trace; what comes after it cannot fail. A handler's slow state is behind one
//! lock, which no request ever takes.
//!
//! # Invariants
//!
//! - A worker that waits holds no seat. While there is work, the reactor is without a poller for one monitor tick at
//!   most.
//! - Every queue, buffer, table and thread count is bounded; beyond a request bound the client gets 503, at once; at
//!   the connection limit we stop accepting and the backlog waits. Log lines beyond the bound are dropped and counted.
//! - Descriptors of guests are counted, each guest's, each handler's and all: clients and the host itself always find theirs.
//! - No handler keeps others from the seats, whether its guests compute, wait, or are many.
//! - Nothing of a guest outlives its request. Named exception: a look-up that it has given up, which holds no more than
//!   a name.
//! - A revision never changes after it is published; a request runs on one revision from its first to its last byte.
//! - What an operator is refused leaves everything as it was.
//! - A revision that is drained and not kept is freed: its receipt says so only when no reference is left.
//! - A truncated response is never mistaken for a complete one (chunked end or END_STREAM is sent only when the guest
//!   finished).
//! - Status codes are chosen in `failure.rs` only; clients never see paths, traps or module names.
//! - Whoever starts a thread joins it. After shutdown none of ours is left. Named exceptions: rayon, wasmtime's cache
//!   worker, Tokio, the log's writer when nobody reads what it writes, a worker whose request is stuck in a file
//!   call when the host ends, and what compiles when a process is told to end before it serves.
//! - No input from network, file or guest can panic the host.
//! - Logging never blocks a worker, and neither guest nor client can forge a log line.
//!
//! # What a guest is told about its client
//!
//! `x-request-id` is the host's id of the request; it is in the response and in every log line too. A well-formed
//! `x-request-id` that the client sent (1 to 128 letters, digits and `-._~:/+=@`) reaches the guest as
//! `x-client-request-id` and the access log as `client_id`. `forwarded` (RFC 7239) ends with an element of the host's:
//! see [`forwarded`]. `traceparent` passes through. What concerns the client's connection does not reach the guest:
//! hop-by-hop fields, those that `connection` names (RFC 9110 section 7.6.1), and `proxy`.
//!
//! # Where it differs from the design
//!
//! Core modules are not made components: wasmtime's adapter keeps its state in a page that it grows the program's
//! memory by, which programs take for theirs that manage all of their memory (Go). Without it there are also two
//! libraries and two instances fewer.
//!
//! The access log has three files instead of one: what is collected (`access_log`), what it looks like (`log_line`) and
//! who writes it (`log_writer`), because guest lines and the host's own records go the same way.
//!
//! Outgoing HTTP runs on the server's reactor and not on Tokio: what a response brings wakes the guest's worker straight
//! into a seat, without a thread between them.
//!
//! Guests of WASI 0.1 and 0.2 sleep on the server's timers; those of 0.3 on wasmtime-wasi's clock, which is Tokio's,
//! unless their standard library speaks 0.2. A thread that waits is woken into a seat, not to ask for one. An answer
//! may wait for up to 200 µs while other short requests are ready: answers that go out in a row cost a tenth less.
//! `run DIR` links guests with a stack of 96 KiB, not 128, so that small ones have two pages of memory.
//!
//! In a handler's queue requests are first in, first out; what keeps one connection from crowding out the others is that
//! it may have only twice as many queued as there are seats. The monitor does not notice a poller that was descheduled
//! between the kernel's answer and the run queue: the kernel runs it again within its time slice. An idle HTTP/1
//! connection is taken apart after 250 ms, because hyper's buffers are nearly all that it costs.
//!
//! Seats are shared by handlers and by time, among those that come back from a wait as among those that are new; in a
//! handler the two take turns. A guest that computes is asked at each tick of its epoch, after 5 ms, to give its seat up
//! if others want it: without that, as many guests as there are seats stop the host until their deadlines, whatever their
//! limits. Those that had to give way have half of their handler's time, so that a light request waits for a slice of
//! theirs and not for all; beside 16 for each seat nothing new of their handler is started, so that they come to an end.
//! The worker that looks after sockets meanwhile does so once a tick.
//!
//! A handler may be swapped while an earlier revision of it still drains, up to 16 of them: a fix need not wait for
//! somebody's stream. A revision is a module *with its settings*: a reload that changes grants or limits makes a new
//! one of the same loaded module. Over a Unix socket there is no
//! reset, so the end of a cut HTTP/1.0 response without a length looks like a whole one.

pub mod cli;
pub mod config;
pub mod config_file;
pub mod control;
pub mod events;
pub mod failure;
pub mod forwarded;
pub mod guest;
pub mod host;
pub mod host_error;
pub mod log_line;
pub mod log_writer;
pub mod operator;
pub mod operator_error;
pub mod package;
pub mod receipt;
pub mod router;
pub mod status;

#[cfg(fuzzing)]
pub mod fuzzing;

mod access_log;
mod certificates;
mod clock;
mod compiler;
mod dispatch;
mod farewell;
mod gate;
mod guard;
mod handler;
mod hop_by_hop;
mod in_flight;
mod listeners;
mod private_dir;
mod request_id;
mod revision;
mod short_text;
mod state_dir;
mod table;
mod take_over;
mod unix_socket;
mod validity;
mod watch;
mod watcher;
mod whole_file;

pub use certificates::CertificateError;
pub use config::Config;
pub use host::{Host, HostBuilder, RunningHost};
pub use host_error::HostError;
