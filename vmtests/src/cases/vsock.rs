//! Sockets of virtual machines, from the guest to itself.

use anyhow::{Result, ensure};

use crate::inside::{Running, output};

/// A server on a vsock, and our client.
pub fn a_server_is_reached() -> Result<()> {
    let pid = "/tmp/vsock.pid";
    let words = [
        "blkit", "nbdkit", "-f", "--vsock", "-P", pid, "memory", "3M",
    ];
    let _server = Running::start(&words, pid)?;
    let size = output(&["blkit", "info", "--size", "nbd+vsock://1/"])?;
    ensure!(size.trim() == "3145728", "the size is {size}");
    Ok(())
}
