//! The configuration file.
pub(crate) fn restart_keys(_: &crate::config::ServerConfig, _: &crate::config::ServerConfig) -> Vec<&'static str> { vec![] }
