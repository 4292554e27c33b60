//! One program for all of this crate's integration tests: it builds and links once.

mod alloc;
mod filters;
mod locks;
mod normalize;
mod reactor;
mod request;
