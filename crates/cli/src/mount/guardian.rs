//! A process that does nothing but outlive the one that serves: a mount whose process was killed is
//! in everybody's way (ENOTCONN), so somebody has to unmount it.
//!
//! fusermount3(1) can do that too (`auto_unmount`), but looks once and at once, and a ring of
//! io_uring keeps `/dev/fuse` open for a moment longer than its process lives.

use std::{
    io::{self, PipeWriter, Read},
    path::Path,
};

use block::{Error, Result};
use reactor::{
    fuse::Mounted,
    process::{self, Forked},
};

/// The guardian of this process; it goes when this is dropped.
pub struct Guardian {
    /// Says by its end that this process has ended.
    life: Option<PipeWriter>,
    child: i32,
}

impl Guardian {
    /// Splits the process, which has one thread, and whose termination signals are blocked: those
    /// for all processes of a terminal must not end the guardian first.
    ///
    /// # Errors
    /// There is no process or pipe to be had.
    pub fn new(point: &Path) -> Result<Guardian> {
        let cannot = |error| Error::io("cannot watch over the mount", error);
        let (mut end, life) = io::pipe().map_err(cannot)?;
        match process::fork().map_err(cannot)? {
            Forked::Parent(child) => Ok(Guardian {
                life: Some(life),
                child,
            }),
            Forked::Child => {
                drop(life);
                // Whoever waits for the end of our output does not wait for the guardian.
                let _ = process::detach_standard_streams();
                // Nothing is ever written.
                let _ = end.read(&mut [0]);
                let done = Mounted::at(point).unmount_if_dead();
                std::process::exit(i32::from(done.is_err()));
            }
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        drop(self.life.take());
        // It may have been killed: then there is nobody to wait for.
        let _ = process::wait_for(self.child);
    }
}
