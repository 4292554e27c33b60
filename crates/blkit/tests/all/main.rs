//! The public API as programs use it: every face on every kind of source, alone and from many threads,
//! against our own server and others.

mod common;
mod faces;
mod mistakes;
mod model;
mod runtimes;
mod serve;
mod servers;
