//! The C library as programs meet it: compiled C, symbols, and other people's binaries.
//!
//! Peers that are not installed make a test print `SKIP: reason` and pass.

mod agree;
mod lab;
mod programs;
mod swap;
