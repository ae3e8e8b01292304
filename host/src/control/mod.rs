//! Operating a running host from outside: HTTP and JSON over a Unix socket that only its owner can reach, or over TCP with a token.
//!
//! | file | owns |
//! |---|---|
//! | `socket` | the socket's file: made, found, told live from dead |
//! | `token` | who may come in over TCP |
//! | `operate` | what can be asked of a host: the seam between this room and [`Operator`](crate::operator::Operator) |
//! | `route`, `server` | what can be asked for, and how it is answered, on a server of its own that works while the other is busy |
//! | `upload`, `event_stream` | a module on its way in, events on their way out |
//! | `client` | the command line's end |

pub mod socket;
pub mod token;

pub(crate) mod client;
pub(crate) mod server;

mod event_stream;
mod operate;
mod route;
#[cfg(test)]
mod tests;
mod upload;
