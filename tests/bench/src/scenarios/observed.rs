//! What it costs to know of each request: hello with an access log in a file, beside hello without one.

use anyhow::Result;

use super::turns::{Peer, compare};
use crate::Options;
use crate::contenders::Contenders;
use crate::folder::Folder;
use crate::load::get;
use crate::report::Report;

pub(crate) fn observed(options: &Options, contenders: &Contenders, report: &mut Report) -> Result<()> {
    let folder = Folder::new()?;
    let log = folder.path().join("log");
    let observed = contenders.astra_host_logging("astra-host, access log", "hello", "text", &log);
    let unobserved = contenders.astra_host("astra-host", "hello", &[]);
    compare("observed", get("/", 32), &observed, &[Peer::of(Some(unobserved), Some(0.95), Some(0.95))], options, report)
}
