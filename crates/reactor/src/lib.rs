//! The event loops of blkit.

pub mod blkdev;
mod executor;
pub mod process;
pub mod sim;
mod timer;
