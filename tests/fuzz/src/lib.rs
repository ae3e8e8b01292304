//! What the targets that go through a server share: a server in this process with a client beside it, and a reading of HTTP/1 that knows
//! nothing of the server's.

pub mod answers;
pub mod client;
pub mod requests;
pub mod server;
