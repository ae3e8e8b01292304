//! Compiling in a process of its own.
