//! What block devices and file locks need beyond reading and writing: safe calls for sources, which
//! have no `unsafe` of their own.
//!
//! All of these may wait in the kernel (a discard of a large range takes seconds), so call them on the
//! pool for blocking jobs.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

// linux/fs.h
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKZEROOUT: libc::Ioctl = 0x127f;
const BLKIOOPT: libc::Ioctl = 0x1279;

/// Tells a block device that a range is no longer needed (BLKDISCARD). Offset and length are bytes,
/// multiples of the logical block size. The range may read as anything afterwards.
///
/// # Errors
/// `EOPNOTSUPP` if the device has no such operation, `EINVAL` if the range is misaligned, `ENOTTY` if
/// it is not a block device.
pub fn discard(device: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    range(device.as_fd(), BLKDISCARD, offset, len)
}

/// Zeroes a range of a block device, by the device if it can, else by writing (BLKZEROOUT). Offset
/// and length are bytes, multiples of the logical block size.
///
/// # Errors
/// As [`discard`].
pub fn zero_out(device: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    range(device.as_fd(), BLKZEROOUT, offset, len)
}

/// The size in bytes of the requests a block device serves best, 0 if it does not say (BLKIOOPT).
///
/// # Errors
/// `ENOTTY` if it is not a block device.
pub fn optimal_io_size(device: impl AsFd) -> io::Result<u32> {
    let mut size: libc::c_uint = 0;
    // SAFETY: the descriptor is open for as long as it is borrowed, and BLKIOOPT writes one unsigned
    // int to the address, which is valid.
    let ret = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), BLKIOOPT, &raw mut size) };
    check(ret).map(|()| size)
}

/// How a file is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileLock {
    /// Others may hold shared locks too. The file must be open for reading.
    Shared,
    /// Nobody else may hold any lock. The file must be open for writing.
    Exclusive,
}

/// Locks a whole file for as long as this open file description exists (F_OFD_SETLK, fcntl(2)).
/// Never waits for another holder. The lock conflicts with those of other open file descriptions,
/// in this process too, and with POSIX record locks; among others, with those QEMU puts on images.
///
/// # Errors
/// `EAGAIN` if somebody else holds a conflicting lock; `EBADF` if the file is not open for what the
/// lock needs; `ENOLCK`, `EINVAL` or `EOPNOTSUPP` if the file system has no such locks.
pub fn lock(file: impl AsFd, kind: FileLock) -> io::Result<()> {
    let mut whole = whole_file(kind);
    // SAFETY: the descriptor is open for as long as it is borrowed, and the structure is a complete
    // `struct flock` that the kernel reads.
    let ret = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw mut whole) };
    check(ret).map_err(|error| match error.raw_os_error() {
        // POSIX lets a system say either; Linux file systems do say both.
        Some(libc::EACCES) => io::Error::from_raw_os_error(libc::EAGAIN),
        _ => error,
    })
}

/// A lock in the way of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockConflict {
    /// The process that holds it, if the kernel knows one: locks of open file descriptions belong to
    /// no process.
    pub holder: Option<u32>,
}

/// Looks what [`lock`] would run into, and locks nothing (F_OFD_GETLK). `None` also where the file
/// system has no such locks.
pub fn lock_conflict(file: impl AsFd, kind: FileLock) -> Option<LockConflict> {
    let mut whole = whole_file(kind);
    // SAFETY: as in `lock`; the kernel writes the conflicting lock back into the structure.
    let ret = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut whole) };
    let conflict = ret == 0 && i32::from(whole.l_type) != libc::F_UNLCK;
    conflict.then(|| LockConflict {
        holder: u32::try_from(whole.l_pid).ok().filter(|pid| *pid > 0),
    })
}

fn range(device: BorrowedFd<'_>, request: libc::Ioctl, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: the descriptor is open for as long as it is borrowed; both requests read two 64-bit
    // numbers from the address, which is valid.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request, range.as_ptr()) })
}

fn whole_file(kind: FileLock) -> libc::flock {
    // SAFETY: `struct flock` is plain numbers, for which zero is a value.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = match kind {
        FileLock::Shared => libc::F_RDLCK,
        FileLock::Exclusive => libc::F_WRLCK,
    } as libc::c_short;
    whole.l_whence = libc::SEEK_SET as libc::c_short;
    // Start 0 and length 0: up to the end, wherever that is. F_OFD_* want l_pid 0.
    whole
}

fn check(ret: libc::c_int) -> io::Result<()> {
    match ret {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions};

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
        result.expect_err("must fail").raw_os_error()
    }

    #[test]
    fn an_exclusive_lock_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(&path).unwrap()
        };
        let (one, two) = (open(), open());
        assert_eq!(lock_conflict(&two, FileLock::Exclusive), None);
        lock(&one, FileLock::Exclusive).unwrap();
        for kind in [FileLock::Exclusive, FileLock::Shared] {
            assert_eq!(errno(lock(&two, kind)), Some(libc::EAGAIN));
            let conflict = lock_conflict(&two, kind).expect("a conflict");
            assert_eq!(conflict.holder, None, "it belongs to no process");
        }
        drop(one);
        lock(&two, FileLock::Shared).unwrap();
        lock(File::open(&path).unwrap(), FileLock::Shared).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(errno(lock(reader, FileLock::Exclusive)), Some(libc::EBADF));
    }

    #[test]
    fn files_are_not_block_devices() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(errno(discard(&file, 0, 4096)), Some(libc::ENOTTY));
        assert_eq!(errno(zero_out(&file, 0, 4096)), Some(libc::ENOTTY));
        assert_eq!(errno(optimal_io_size(&file)), Some(libc::ENOTTY));
    }
}
