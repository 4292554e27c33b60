//! Calls that make a process a service: sockets it inherits, the background, another user, memory
//! that stays.
//!
//! They are here for the reason that [`crate::process`] gives: the system's interface to them is
//! unsafe, and the programs that need them forbid unsafe code. All of them change the whole process,
//! so a server makes them while it has one thread.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

/// The first descriptor of socket activation (sd_listen_fds(3)).
const FIRST_INHERITED: i32 = 3;

/// Takes over `count` descriptors from 3 on, as socket activation hands them over, and keeps them
/// from programs that are started later.
///
/// # Errors
/// One of them is not open.
///
/// # Panics
/// If called twice: a descriptor has one owner.
pub fn inherited_descriptors(count: u32) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    let taken = TAKEN.swap(true, std::sync::atomic::Ordering::Relaxed);
    assert!(!taken, "inherited descriptors are taken once");
    let count = i32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    (0..count)
        .map(|number| {
            let fd = FIRST_INHERITED + number;
            // SAFETY: an integer argument; the call fails if the descriptor is not open.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: it is open, and whoever started this process says that it is for this use;
            // no code of ours had it before, because this function runs once.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}

/// Makes the process its own session, in the root directory, with the usual mask for new files, and
/// its standard streams at `/dev/null`; standard error only if `silent`.
///
/// # Errors
/// What the system says.
pub fn into_background(silent: bool) -> io::Result<()> {
    // Fails only if this is a session's leader already, which is as good.
    // SAFETY: no memory is involved in any of these calls.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
    }
    std::env::set_current_dir("/")?;
    crate::process::detach_standard_streams()?;
    if silent {
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        // SAFETY: descriptors only; standard error stays open.
        if unsafe { libc::dup2(null.as_raw_fd(), libc::STDERR_FILENO) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The number of a user, by name or number; `None` if there is none of that name.
///
/// # Errors
/// The database of users cannot be read.
pub fn find_user(name: &OsStr) -> io::Result<Option<u32>> {
    if let Some(number) = as_number(name) {
        return Ok(Some(number));
    }
    lookup(name, |name, buffer| {
        let mut entry = MaybeUninit::<libc::passwd>::uninit();
        let mut found = ptr::null_mut();
        let (text, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: all pointers are ours and valid for the call; the entry is read only if the call
        // says by `found` that it has been filled.
        unsafe {
            let error = libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), text, room, &mut found);
            (
                error,
                (!found.is_null()).then(|| entry.assume_init().pw_uid),
            )
        }
    })
}

/// The number of a group, by name or number; `None` if there is none of that name.
///
/// # Errors
/// The database of groups cannot be read.
pub fn find_group(name: &OsStr) -> io::Result<Option<u32>> {
    if let Some(number) = as_number(name) {
        return Ok(Some(number));
    }
    lookup(name, |name, buffer| {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = ptr::null_mut();
        let (text, room) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: as for users.
        unsafe {
            let error = libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), text, room, &mut found);
            (
                error,
                (!found.is_null()).then(|| entry.assume_init().gr_gid),
            )
        }
    })
}

fn as_number(name: &OsStr) -> Option<u32> {
    name.to_str()?.parse().ok()
}

/// Looks a name up with a buffer that grows until the entry fits.
fn lookup(
    name: &OsStr,
    look: impl Fn(&CStr, &mut [u8]) -> (i32, Option<u32>),
) -> io::Result<Option<u32>> {
    const MOST: usize = 1 << 20;
    let Ok(name) = CString::new(name.as_bytes()) else {
        return Ok(None);
    };
    let mut buffer = vec![0; 1024];
    loop {
        match look(&name, &mut buffer) {
            (0, found) => return Ok(found),
            (libc::ERANGE, _) if buffer.len() < MOST => buffer.resize(buffer.len() * 2, 0),
            (libc::EINTR, _) => {}
            // Systems differ in what they say of a name that is not there (getpwnam(3)).
            (libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, _) => return Ok(None),
            (error, _) => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Becomes another group and user for good: by the calls of the C library, which change every
/// thread, and in the order in which each is still allowed. Supplementary groups are given up.
///
/// # Errors
/// Not allowed; some of it may have been done.
pub fn drop_privileges(user: Option<u32>, group: Option<u32>) -> io::Result<()> {
    let check = |result: i32| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    if let Some(group) = group {
        // SAFETY: an empty list of groups, then integers.
        check(unsafe { libc::setgroups(0, ptr::null()) })?;
        // SAFETY: an integer argument.
        check(unsafe { libc::setgid(group) })?;
    }
    if let Some(user) = user {
        if group.is_none() {
            // SAFETY: an empty list of groups.
            check(unsafe { libc::setgroups(0, ptr::null()) })?;
        }
        // SAFETY: an integer argument.
        check(unsafe { libc::setuid(user) })?;
        // SAFETY: an integer argument; root's power must not come back.
        if user != 0 && unsafe { libc::setuid(0) } == 0 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    Ok(())
}

/// Keeps all memory of the process, now and later, from being swapped out.
///
/// # Errors
/// More than RLIMIT_MEMLOCK allows.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: flags only.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A stream to a port of AF_VSOCK (vsock(7)): of a virtual machine, or of the host (`cid` 2).
///
/// # Errors
/// The kernel has no vsock, or nobody listens there.
pub fn connect_vsock(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let (socket, address, length) = vsock(cid, port)?;
    // SAFETY: the address is ours and as long as told.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A socket that listens on a port of AF_VSOCK (vsock(7)), for the virtual machines of this host and
/// for the host itself.
///
/// # Errors
/// The kernel has no vsock, or the port is in use.
pub fn listen_vsock(port: u32) -> io::Result<OwnedFd> {
    let (socket, address, length) = vsock(libc::VMADDR_CID_ANY, port)?;
    let fd = socket.as_raw_fd();
    // SAFETY: the address is ours and as long as told.
    if unsafe { libc::bind(fd, (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only.
    match unsafe { libc::listen(fd, libc::SOMAXCONN) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A new socket of AF_VSOCK, and an address for it.
fn vsock(cid: u32, port: u32) -> io::Result<(OwnedFd, libc::sockaddr_vm, libc::socklen_t)> {
    // SAFETY: integers only; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero bytes are a valid address of this kind.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    Ok((socket, address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        assert_eq!(find_user(OsStr::new("root")).unwrap(), Some(0));
        assert_eq!(find_group(OsStr::new("root")).unwrap(), Some(0));
        assert_eq!(find_user(OsStr::new("12345")).unwrap(), Some(12345));
        for name in ["no such user", "", "a\0b", "-1"] {
            assert_eq!(find_user(OsStr::new(name)).unwrap(), None, "{name:?}");
            assert_eq!(find_group(OsStr::new(name)).unwrap(), None, "{name:?}");
        }
    }
}
