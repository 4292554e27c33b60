//! Mounting FUSE file systems: `/dev/fuse`, mount(2) for root, fusermount3(1) for everybody else
//! (mount.fuse3(8), fuse(4)).

use std::{
    ffi::CString,
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags,
        SocketType, recvmsg, socketpair,
    },
};

use crate::process;

/// What is to be mounted, and where.
#[derive(Clone, Debug)]
pub struct Mount {
    /// A directory, or a file.
    pub point: PathBuf,
    /// Whether the mount point is a directory.
    pub directory: bool,
    /// What mount tables name as the source.
    pub source: String,
    /// The type is `fuse.` and this.
    pub subtype: String,
    /// Options for every file system (mount(8)), such as `ro`; `nosuid` and `nodev` hold unless
    /// `suid` or `dev` is given.
    pub general: Vec<String>,
    /// Options for FUSE in the kernel, such as `allow_other`.
    pub fuse: Vec<String>,
}

/// A mounted file system.
#[derive(Clone, Debug)]
pub struct Mounted {
    point: PathBuf,
}

/// Mounts. Returns the descriptor that requests come from, and what unmounts.
///
/// # Errors
/// What the system or fusermount3(1) says. Nothing is mounted then.
pub fn mount_fuse(what: &Mount) -> io::Result<(OwnedFd, Mounted)> {
    let fd = match is_root() {
        true => mount_as_root(what)?,
        false => mount_with_help(what)?,
    };
    let point = what.point.clone();
    Ok((fd, Mounted { point }))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Mounted {
    /// What is, or will be, mounted here.
    pub fn at(point: &Path) -> Mounted {
        Mounted {
            point: point.to_owned(),
        }
    }

    /// Takes the mount away from everybody's sight; it is gone when nobody uses it any more. Waits,
    /// for answers from this very process too: so it is nothing for a reactor's thread.
    ///
    /// # Errors
    /// What the system or fusermount3(1) says: it may be unmounted already.
    pub fn unmount(&self) -> io::Result<()> {
        if is_root() {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            return Ok(unmount(&self.point, flags)?);
        }
        let mut command = Command::new(HELPER);
        command.args(["-u", "-q", "-z", "--"]).arg(&self.point);
        told(command.output()?)
    }

    /// Unmounts it if the process that served it is gone, and waits for that if it is about to go.
    ///
    /// # Errors
    /// As [`Mounted::unmount`].
    pub fn unmount_if_dead(&self) -> io::Result<()> {
        use rustix::io::Errno;
        // Never from a cache: it is answered, refused, or given up when the process has gone.
        match rustix::fs::statfs(&self.point) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => self.unmount(),
            _ => Ok(()),
        }
    }

    /// Lets the kernel read ahead so many bytes of a file that is read from front to back. Only
    /// root can say so; without effect for others.
    pub fn set_read_ahead(&self, bytes: u64) {
        let Ok(found) = rustix::fs::stat(&self.point) else {
            return;
        };
        let (major, minor) = (
            rustix::fs::major(found.st_dev),
            rustix::fs::minor(found.st_dev),
        );
        let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        // A container may forbid it.
        let _ = std::fs::write(path, (bytes >> 10).to_string());
    }
}

/// A further descriptor of the same mount, for another loop (FUSE_DEV_IOC_CLONE).
///
/// # Errors
/// What the system says.
pub fn clone_fuse(fd: impl AsFd) -> io::Result<OwnedFd> {
    /// `_IOR(229, 0, uint32_t)`, linux/fuse.h.
    const CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
    let other = device()?;
    let mut number = fd.as_fd().as_raw_fd().unsigned_abs();
    // SAFETY: the argument is a 4 byte number that the kernel reads.
    let cloned = unsafe { libc::ioctl(other.as_raw_fd(), CLONE, &mut number) };
    match cloned {
        0.. => Ok(other),
        _ => Err(io::Error::last_os_error()),
    }
}

fn device() -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("/dev/fuse: {error}"));
    device.map(OwnedFd::from).map_err(named)
}

fn mount_as_root(what: &Mount) -> io::Result<OwnedFd> {
    let fd = device()?;
    let mode = if what.directory { "40000" } else { "100000" };
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let mut data = format!(
        "fd={},rootmode={mode},user_id={},group_id={}",
        fd.as_raw_fd(),
        user.as_raw(),
        group.as_raw()
    );
    for option in &what.fuse {
        data.push(',');
        data.push_str(option);
    }
    let kind = format!("fuse.{}", what.subtype);
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = flags(&what.general)?;
    mount(
        what.source.as_str(),
        &what.point,
        kind.as_str(),
        flags,
        data.as_c_str(),
    )?;
    Ok(fd)
}

/// Options for every file system.
const GENERAL: &[(&str, MountFlags, bool)] = &[
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
];

/// Whether this is an option for every file system.
pub fn is_general(option: &str) -> bool {
    GENERAL.iter().any(|known| known.0 == option)
}

fn flags(general: &[String]) -> io::Result<MountFlags> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    for option in general {
        let known = GENERAL.iter().find(|known| known.0 == option);
        let &(_, flag, on) = known.ok_or(io::ErrorKind::InvalidInput)?;
        flags.set(flag, on);
    }
    Ok(flags)
}

/// The program that may mount for everybody.
const HELPER: &str = "fusermount3";

/// Has fusermount3(1) mount. Its descriptor comes through a socket, whose number it finds in its
/// environment.
fn mount_with_help(what: &Mount) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut options = vec![
        format!("fsname={}", escaped(&what.source)),
        format!("subtype={}", escaped(&what.subtype)),
    ];
    options.extend(what.general.iter().cloned());
    options.extend(what.fuse.iter().cloned());
    let mut command = Command::new(HELPER);
    command
        .args(["-o", &options.join(","), "--"])
        .arg(&what.point);
    // As standard input, which is a descriptor that a child always keeps.
    command.env("_FUSE_COMMFD", "0").stdin(Stdio::from(theirs));
    process::with_clean_signals(&mut command);
    let missing = |error: io::Error| io::Error::new(error.kind(), format!("{HELPER}: {error}"));
    let output = command.output().map_err(missing)?;
    // The command has the other end of the socket.
    drop(command);
    told(output)?;
    receive(&ours)
}

/// Commas separate options.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// What a helper says when it fails.
fn told(output: Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(match text.is_empty() {
        true => format!("{HELPER} failed: {}", output.status),
        false => text,
    }))
}

fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other(format!("{HELPER} did not mount")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_all_file_systems_are_flags() {
        let given = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            flags(&words).ok()
        };
        let safe = MountFlags::NOSUID | MountFlags::NODEV;
        assert_eq!(given(&[]), Some(safe));
        assert_eq!(
            given(&["ro", "dev"]),
            Some(MountFlags::RDONLY | MountFlags::NOSUID)
        );
        assert_eq!(given(&["ro", "rw"]), Some(safe));
        assert_eq!(given(&["fly"]), None);
        assert!(is_general("noexec") && !is_general("allow_other"));
        assert_eq!(escaped("a,b\\c"), "a\\,b\\\\c");
    }
}
