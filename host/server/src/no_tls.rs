//! In the place of `tls.rs` where the feature `tls` is off: configurations and sessions that cannot exist, and so cost nothing.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::task::Poll;

use crate::http::ConnectionInfo;
use crate::link::Link;
use crate::server::Protocols;

pub(crate) struct Config(Infallible);

pub(crate) struct Session(Infallible);

impl Config {
    pub(crate) fn offering(self, _: Protocols) -> Self {
        match self.0 {}
    }

    pub(crate) fn session(&self, _: &mut ConnectionInfo) -> io::Result<Session> {
        match self.0 {}
    }
}

impl Session {
    pub(crate) fn poll_handshake(&mut self, _: &Link) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(crate) fn poll_read(&mut self, _: &Link, _: usize, _: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    pub(crate) fn poll_write(&mut self, _: &Link, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    pub(crate) fn poll_send(&mut self, _: &Link) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    pub(crate) fn write_now(&mut self, _: &Link, _: &[u8]) {
        match self.0 {}
    }

    pub(crate) fn say_goodbye(&mut self, _: &Link) {
        match self.0 {}
    }
}
