//! Test tools of blkit: what every layer, source and export is tested with.
//!
//! | module | what |
//! | --- | --- |
//! | [`disk`] | a simulated device: delays, reorders, tears, fails, crashes, and asserts its limits |
//! | [`model`] | the checker: any device behaves like an array of bytes with extent facts |
//! | [`workload`] | seeded random traffic against a device, checked by the model |
//! | [`conformance`] | the suite every device must pass, chosen by its limits |
//! | [`step`] | a device whose requests the test completes by hand |
//! | [`host`] | a host, a context, a source and a disk in memory, for tests of sources and filters |
//! | [`peers`] | whether another server listens already |
//! | [`seeds`] | which seeds a run tries, and how a failing one is run again |
//!
//! Everything works on the simulated loop and on the real ones. Nothing here measures time.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod disk;
pub mod host;
pub mod model;
pub mod peers;
pub mod seeds;
pub mod step;
pub mod workload;

pub use conformance::Drive;
pub use disk::{Faults, FlushFault, SimDisk, SimDiskOptions};
pub use host::{DeviceSource, MemoryDisk, TestHost};
pub use model::{Model, Violation};
pub use peers::listens;
pub use reactor::sim::{Rng, SimLoop, SimWorld};
pub use seeds::Seeds;
pub use step::{Step, StepDevice};
pub use workload::Workload;
