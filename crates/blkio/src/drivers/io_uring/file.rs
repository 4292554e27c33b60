//! What a file or a block device can do, asked once.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicI32, Ordering},
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, SeekFrom, StatxFlags, fstat, fstatfs, seek, statx},
    io::Errno,
};

use crate::{Error, Result, error::invalid};

/// How a read may be done without the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inline {
    /// It is memory: nothing to wait for.
    Memory,
    /// If the page cache has it (RWF_NOWAIT).
    Cached,
    /// Not at all.
    Never,
}

/// An open file. Shared by all queues.
#[derive(Debug)]
pub(super) struct File {
    pub fd: OwnedFd,
    pub is_regular: bool,
    pub inline: Inline,
    /// Of requests, in bytes.
    pub alignment: u32,
    /// Of buffers, in bytes.
    pub memory_alignment: u32,
    pub optimal_alignment: u32,
    /// 0 if the device does not say.
    pub optimal_size: u32,
    pub discard_alignment: u32,
    /// A durable write is one request of the device.
    pub fua: bool,
    /// Rings that poll the device work.
    pub can_poll: bool,
    /// What a flush failed with, or 0.
    poison: AtomicI32,
}

const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKPBSZGET: libc::Ioctl = 0x127b;
const BLKIOOPT: libc::Ioctl = 0x1279;

impl File {
    /// An error gives the descriptor back.
    pub fn new(fd: OwnedFd, flags: OFlags) -> std::result::Result<File, (Error, OwnedFd)> {
        match File::look(&fd, flags) {
            Ok(look) => Ok(look(fd)),
            Err(error) => Err((error, fd)),
        }
    }

    fn look(fd: &OwnedFd, flags: OFlags) -> Result<impl FnOnce(OwnedFd) -> File + use<>> {
        let stat = fstat(fd)?;
        let is_regular = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => true,
            FileType::BlockDevice => false,
            _ => {
                let text = "The file must be a block device or a regular file";
                return Err(invalid(text));
            }
        };
        let direct = flags.contains(OFlags::DIRECT);
        let page = crate::region::page_size() as u32;
        let logical = device_number(fd, BLKSSZGET);
        let (alignment, memory_alignment) = match (direct, is_regular) {
            (false, _) => (1, 1),
            (true, true) => direct_alignment(fd),
            (true, false) => (logical.unwrap_or(page), logical.unwrap_or(page)),
        };
        let optimal = match is_regular {
            true => u32::try_from(stat.st_blksize).unwrap_or(page),
            false => device_number(fd, BLKPBSZGET).unwrap_or(page),
        };
        let discard_alignment = match is_regular {
            true => 1,
            false => discard_granularity(stat.st_rdev).unwrap_or(logical.unwrap_or(page)),
        };
        let inline = match direct {
            true => Inline::Never,
            false if is_regular && in_memory(fd) => Inline::Memory,
            false => Inline::Cached,
        };
        let optimal_size = device_number(fd, BLKIOOPT).unwrap_or(0);
        let can_poll = direct && super::queue::can_poll(fd);
        Ok(move |fd| File {
            fd,
            is_regular,
            inline,
            alignment,
            memory_alignment,
            optimal_alignment: optimal.max(alignment),
            optimal_size,
            discard_alignment: discard_alignment.max(alignment),
            fua: direct && !is_regular,
            can_poll,
            poison: AtomicI32::new(0),
        })
    }

    /// Bytes. Asked anew each time: a file grows.
    pub fn capacity(&self) -> Result<u64> {
        Ok(seek(&self.fd, SeekFrom::End(0))?)
    }

    /// Data was lost: no flush may succeed any more.
    pub fn poison(&self, errno: i32) {
        let _ = self
            .poison
            .compare_exchange(0, errno, Ordering::AcqRel, Ordering::Acquire);
    }

    /// What a flush failed with before, or 0.
    pub fn poisoned(&self) -> i32 {
        self.poison.load(Ordering::Acquire)
    }
}

/// Alignments of direct I/O with a file: of offsets, and of memory.
fn direct_alignment(fd: &OwnedFd) -> (u32, u32) {
    // What all devices of today take, where the kernel does not say.
    const COMMON: (u32, u32) = (4096, 4096);
    let asked = StatxFlags::DIOALIGN;
    let Ok(stat) = statx(fd, c"", AtFlags::EMPTY_PATH, asked) else {
        return COMMON;
    };
    match (stat.stx_dio_offset_align, stat.stx_dio_mem_align) {
        (0, _) | (_, 0) => COMMON,
        found => found,
    }
}

/// A number that a block device knows of itself.
fn device_number(fd: &OwnedFd, request: libc::Ioctl) -> Option<u32> {
    let mut number = 0u32;
    // SAFETY: these calls write one int.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, &mut number) };
    (done == 0 && number != 0).then_some(number)
}

/// How coarsely a block device discards, in bytes.
fn discard_granularity(device: u64) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition's is its disk's.
    let places = ["queue", "../queue"];
    let find = |place| std::fs::read_to_string(format!("{device}/{place}/discard_granularity"));
    let text = places.into_iter().find_map(|place| find(place).ok())?;
    text.trim().parse().ok().filter(|bytes| *bytes != 0)
}

/// Whether a file is nothing but memory.
fn in_memory(fd: &OwnedFd) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const HUGETLBFS: u64 = 0x9584_58f6;
    let kind = fstatfs(fd).map_or(0, |stat| stat.f_type as u64 & 0xffff_ffff);
    [TMPFS, RAMFS, HUGETLBFS].contains(&kind)
}

/// A number of `errno.h` for a poisoned file.
pub(super) fn negative(errno: Errno) -> i32 {
    -errno.raw_os_error()
}
