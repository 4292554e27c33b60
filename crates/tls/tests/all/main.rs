//! One program for all of this crate's integration tests: it builds and links once.

mod certificates;
mod clients;
mod sessions;
