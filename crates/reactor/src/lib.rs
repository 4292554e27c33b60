//! The event loops of blkit.

mod executor;
pub mod process;
pub mod sim;
mod timer;
