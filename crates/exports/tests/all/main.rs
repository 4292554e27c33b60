//! One program for all of this crate's integration tests: it builds and links once.

mod common;
mod sessions;
mod simulated;
mod suites;
