//! Filters: what stands in front of a source and changes what passes.
//!
//! | filter | what | size |
//! | --- | --- | --- |
//! | [`offset`] | serves a part of the disk | map |
//! | [`readonly`] | refuses changes | map |
//! | [`stats`] | counts requests, bytes, errors, latencies | hook |
//! | [`delay`] | makes the disk slow | hook |
//! | [`error`] | fails requests at random | hook |
//! | [`cow`] | keeps changes in a temporary overlay | async |
//!
//! Each filter is a configuration struct, from which every face of it is made, and a type that
//! implements [`block::Filter`]; [`registry()`] lists them all. They do no I/O of their own: files,
//! programs and scratch space come from [`block::Host`], so they run the same on every driver and
//! in simulation. [`writing_a_filter`] shows how to write another.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cow;
pub mod delay;
pub mod error;
pub mod offset;
pub mod readonly;
mod registry;
mod rng;
pub mod stats;
mod trigger;

pub use registry::{Entry, Make, registry};

#[doc = include_str!("../../../docs/writing-a-filter.md")]
pub mod writing_a_filter {}
