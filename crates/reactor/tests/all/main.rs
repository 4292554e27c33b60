//! One program for all of this crate's integration tests: it builds and links once.

extern crate blkit_reactor as reactor;

mod allocations;
mod bridge;
mod common;
mod descriptors;
mod files;
mod loops;
mod streams;
