//! One program for all of this crate's integration tests: it builds and links once.

mod allocations;
mod common;
mod cow;
mod small;
mod stacks;
