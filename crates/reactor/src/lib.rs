//! The event loops of blkit.

mod executor;
pub mod process;
mod timer;
