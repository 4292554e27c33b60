//! Disks for virtual machines by vhost-user: as `blkit serve --vhost-user` is told of them (`disk`), and
//! by a program of its own name, as management software starts such back-ends (`program`).

mod disk;
pub mod program;

pub use disk::{DiskConfig, adopt, bind};
