//! One program for all of this crate's integration tests: it builds and links once.

mod cves;
mod garbage;
mod round_trip;
mod sessions;
