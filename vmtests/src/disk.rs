//! Disks as the cases see them: blocking, by offset and bytes.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result};

/// O_DIRECT, on x86-64.
const O_DIRECT: i32 = 0o40_000;

/// Where the kernel's direct I/O wants its memory aligned.
const ALIGNMENT: usize = 4096;

/// A disk.
pub trait Disk {
    /// Bytes.
    fn size(&mut self) -> Result<u64>;
    /// Reads all of `into`.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<()>;
    /// Writes all of `from`.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<()>;
    /// What was written is on the medium when this returns.
    fn flush(&mut self) -> Result<()>;
}

/// A block device of the kernel, past its page cache.
pub struct KernelDisk {
    file: File,
    sectors: String,
    bounce: Vec<u8>,
}

impl KernelDisk {
    /// Opens `/dev/NAME`.
    pub fn open(name: &str) -> Result<KernelDisk> {
        let path = format!("/dev/{name}");
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_DIRECT);
        Ok(KernelDisk {
            file: options.open(&path).context(path)?,
            sectors: format!("/sys/class/block/{name}/size"),
            bounce: Vec::new(),
        })
    }

    /// Aligned memory.
    fn aligned(bounce: &mut Vec<u8>, len: usize) -> &mut [u8] {
        bounce.resize(bounce.len().max(len + ALIGNMENT), 0);
        let skip = bounce.as_ptr().align_offset(ALIGNMENT);
        &mut bounce[skip..skip + len]
    }
}

impl Disk for KernelDisk {
    fn size(&mut self) -> Result<u64> {
        let sectors: u64 = number(Path::new(&self.sectors))?;
        Ok(sectors * 512)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<()> {
        let memory = KernelDisk::aligned(&mut self.bounce, into.len());
        self.file
            .read_exact_at(memory, at)
            .with_context(|| format!("read at {at}"))?;
        into.copy_from_slice(memory);
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<()> {
        let memory = KernelDisk::aligned(&mut self.bounce, from.len());
        memory.copy_from_slice(from);
        self.file
            .write_all_at(memory, at)
            .with_context(|| format!("write at {at}"))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_all().context("flush")
    }
}

/// The number in a file of sysfs.
pub fn number(path: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim()
        .parse()
        .with_context(|| format!("{}: {text}", path.display()))
}
