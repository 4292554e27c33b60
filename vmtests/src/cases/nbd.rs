//! The kernel's NBD client on our server.

use anyhow::Result;

use crate::{
    disk::{Disk, KernelDisk},
    inside::{Running, output, wait_for},
    load::Model,
};

/// A disk of the kernel over TCP: a file system, a verified load, zeroes by discarding.
pub fn a_kernel_disk() -> Result<()> {
    let pid = "/tmp/nbd.pid";
    let _server = Running::start(&["blkit", "nbdkit", "-f", "-P", pid, "memory", "64M"], pid)?;
    output(&["nbd-client", "-N", "disk", "127.0.0.1", "/dev/nbd0"])?;
    let mut disk = KernelDisk::open("nbd0")?;
    wait_for("the disk's size", || {
        disk.size().is_ok_and(|size| size == 64 << 20)
    })?;
    let mut model = Model::new(0, 16 << 20, 1);
    model.run(&mut disk, 400, 256 << 10)?;
    output(&["blkdiscard", "-o", "4194304", "-l", "4194304", "/dev/nbd0"])?;
    model.zeroed(4 << 20, 4 << 20);
    model.check_all(&mut disk)?;
    output(&["mke2fs", "/dev/nbd0"])?;
    drop(disk);
    output(&["nbd-client", "-d", "/dev/nbd0"])?;
    Ok(())
}
