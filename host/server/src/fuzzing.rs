//! What the fuzz targets of `tests/fuzz` reach beside the public API. There is no such room unless cargo-fuzz sets `cfg(fuzzing)`.

use std::net::SocketAddr;

use crate::proxy::{self, Header, NoHeader};

/// What a proxy says of its client, and the address of ours that it connected to; none if it says nothing.
pub type Announced = Option<(SocketAddr, SocketAddr)>;

/// Reads what has come so far of a header of the PROXY protocol: what it says, or how many bytes are missing at least.
///
/// # Errors
/// It is no header.
pub fn proxy_header(bytes: &[u8]) -> Result<Result<Announced, usize>, ()> {
    match proxy::read(bytes) {
        Ok(Header::Is(announced)) => Ok(Ok(announced)),
        Ok(Header::Needs(missing)) => Ok(Err(missing)),
        Err(NoHeader) => Err(()),
    }
}
