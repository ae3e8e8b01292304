//! Noticing that files change.
