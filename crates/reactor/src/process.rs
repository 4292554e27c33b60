//! Calls that shape the whole process: signals, fork, limits.
//!
//! They are here because the system's interface to them is unsafe and the programs that need them
//! forbid unsafe code; each is small and safe to call at any time. The order in which a server
//! calls them is the server's: block signals before the first thread exists (threads inherit the
//! mask), fork while there is one thread, read signals by descriptor afterwards.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
    ptr,
    sync::Arc,
};

/// The signals that end a server.
pub const TERMINATION: &[i32] = &[libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];

/// Asks a process to end.
pub const TERMINATE: i32 = libc::SIGTERM;

/// A child has changed its state; blocked and read by those who wait for children.
pub const CHILD: i32 = libc::SIGCHLD;

/// Blocks `signals` in the calling thread and in threads it makes from now on.
///
/// Programs inherit the mask, and few expect that: start them by way of [`with_clean_signals`].
///
/// # Errors
/// A number that is no signal.
pub fn block_signals(signals: &[i32]) -> io::Result<()> {
    let set = signal_set(signals)?;
    // SAFETY: `set` is an initialised signal set, and no old set is asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Makes a write to a broken pipe or socket an error and not a signal.
///
/// Programs started by `std::process::Command` begin with the signal's default action.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE, and no handler of ours exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Lets the program begin with no signal blocked, whatever the thread that starts it has blocked.
/// (The standard library sees to SIGPIPE, and leaves the mask as it is.)
pub fn with_clean_signals(command: &mut Command) -> &mut Command {
    let empty = || {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is initialised by the first call and read by the second.
        let failed = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
        };
        match failed {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    };
    // SAFETY: the closure runs between fork and exec, and makes two calls that are
    // async-signal-safe; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(empty) }
}

/// Has the program ended when the thread that starts it ends, however that comes: for programs that
/// must not outlive their user. Start it on a thread that lives long enough, such as the first.
pub fn ending_with_this_thread(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: integers only, no memory.
        let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no arguments, cannot fail.
        match unsafe { libc::getppid() } as u32 == parent {
            true => Ok(()),
            // It ended before the call.
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: the closure runs between fork and exec, and makes two calls that are
    // async-signal-safe; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(tie) }
}

/// A copy of a descriptor that this process got from its parent, closed on exec. The parent's own
/// number stays open, for whoever else was told of it.
///
/// # Errors
/// No such descriptor is open, or there are too many.
pub fn inherited_descriptor(number: u32) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: fcntl takes any number, and fails for one that is not open; the copy is not numbered
    // like a standard stream.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    match copy {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a descriptor that was just made, and that nobody else knows.
        copy => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
    }
}

/// Signals read from a descriptor.
pub struct Signals(Arc<OwnedFd>);

/// A signal that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// It comes from the kernel, as from a key pressed on the terminal, which sends it to every
    /// process of the foreground group; otherwise from a process, to this one.
    pub from_kernel: bool,
}

impl Signals {
    /// A descriptor for `signals`, which should be blocked. Reads what is sent to the process
    /// that reads, so make it after a fork.
    ///
    /// # Errors
    /// Out of descriptors, or a number that is no signal.
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        let set = signal_set(signals)?;
        // SAFETY: `set` is an initialised signal set; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just returned this descriptor, so nobody else owns it.
        Ok(Signals(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The descriptor: readable when a signal waits.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// The next signal, if one waits.
    ///
    /// # Errors
    /// A failed read.
    pub fn take(&self) -> io::Result<Option<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        // SAFETY: the buffer is SIZE bytes long and ours until the call returns.
        let n = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), SIZE) };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: a structure of integers; zeroed first, then written by the kernel.
        let info = unsafe { info.assume_init() };
        Ok(Some(Received {
            signal: info.ssi_signo as i32,
            from_kernel: info.ssi_code == SI_KERNEL,
        }))
    }

    /// Waits for the next signal, on the calling thread.
    ///
    /// # Errors
    /// A failed wait or read.
    pub fn wait(&self) -> io::Result<Received> {
        loop {
            if let Some(received) = self.take()? {
                return Ok(received);
            }
            let mut poll = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry, ours until the call returns.
            if unsafe { libc::poll(&mut poll, 1, -1) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which of the two processes this is after [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The original; the number is the child's.
    Parent(i32),
    /// The new one.
    Child,
}

/// Splits the process in two.
///
/// # Errors
/// Refused with `ResourceBusy` while the process has more than one thread: the others would not
/// exist in the child, and the locks they hold would never open. Otherwise what the system says.
pub fn fork() -> io::Result<Forked> {
    let threads = thread_count()?;
    if threads != 1 {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("a process of {threads} threads cannot fork safely"),
        ));
    }
    // SAFETY: this is the only thread, so no lock is held by one that would be missing in the
    // child, which may therefore go on with any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        child => Ok(Forked::Parent(child)),
    }
}

/// How many threads this process has.
///
/// # Errors
/// No `/proc`.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

/// Waits for a child of this process to end.
///
/// # Errors
/// No such child.
pub fn wait_for(child: i32) -> io::Result<Ended> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours until the call returns.
        if unsafe { libc::waitpid(child, &mut status, 0) } >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    })
}

/// Sends a signal to one process.
///
/// # Errors
/// No such process, no permission, or a number that names no single process.
pub fn send_signal(process: i32, signal: i32) -> io::Result<()> {
    if process <= 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: no memory is involved.
    match unsafe { libc::kill(process, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has SIGTERM sent to this process when `parent` ends, or at once if that is not its parent any
/// more. Call it on the thread that lives as long as the process.
///
/// # Errors
/// What the system says.
pub fn exit_with_parent(parent: u32) -> io::Result<()> {
    // SAFETY: an integer argument, no memory.
    let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    // The parent may have died before the call.
    if std::os::unix::process::parent_id() != parent {
        send_signal(std::process::id() as i32, libc::SIGTERM)?;
    }
    Ok(())
}

/// Points standard input and output at `/dev/null`: they are somebody else's.
///
/// # Errors
/// No `/dev/null`.
pub fn detach_standard_streams() -> io::Result<()> {
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: descriptors only; the standard library expects these two to be open, and they
        // stay so.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Raises the soft limit of open descriptors to the hard one, and returns what it is now. Each
/// client costs a descriptor, and soft limits are small for the sake of `select`, unused here.
///
/// # Errors
/// What the system says.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is ours until the call returns.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is initialised and only read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// `si_code` of signals that the kernel sends on its own (missing in `libc` for this target).
const SI_KERNEL: i32 = 0x80;

fn signal_set(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call initialises the whole set and cannot fail on a valid pointer.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &signal in signals {
        // SAFETY: `set` is initialised.
        if unsafe { libc::sigaddset(&mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read_from_the_descriptor() {
        // USR2 and not a termination signal: were the mask wrong, the test would die of it.
        std::thread::spawn(|| {
            block_signals(&[libc::SIGUSR2]).expect("blocks");
            let signals = Signals::new(&[libc::SIGUSR2]).expect("signalfd");
            assert_eq!(signals.take().expect("reads"), None);
            // SAFETY: a signal to the calling thread, which has it blocked.
            let sent = unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
            assert_eq!(sent, 0);
            let received = signals.wait().expect("waits");
            assert_eq!(received.signal, libc::SIGUSR2);
            assert!(!received.from_kernel);
            assert_eq!(signals.take().expect("reads"), None);
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn numbers_that_are_no_signals_are_refused() {
        assert!(block_signals(&[0]).is_err());
        assert!(block_signals(&[100_000]).is_err());
        assert!(send_signal(0, libc::SIGTERM).is_err());
        assert!(send_signal(-1, libc::SIGTERM).is_err());
    }

    #[test]
    fn a_process_with_threads_does_not_fork() {
        // On a thread of our own: some test runners use the process's only one.
        let refused = std::thread::spawn(|| {
            assert!(thread_count().expect("proc") > 1);
            fork().map_err(|error| error.kind())
        });
        let refused = refused.join().expect("no panic");
        assert_eq!(refused, Err(io::ErrorKind::ResourceBusy));
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "`wait_for` is what is tested")]
    fn the_end_of_a_child_is_seen() {
        let child = Command::new("sh")
            .args(["-c", "exit 7"])
            .spawn()
            .expect("spawns");
        assert_eq!(
            wait_for(child.id() as i32).expect("waits"),
            Ended::Exited(7)
        );
        let child = Command::new("sleep").arg("100").spawn().expect("spawns");
        send_signal(child.id() as i32, libc::SIGTERM).expect("sends");
        assert_eq!(
            wait_for(child.id() as i32).expect("waits"),
            Ended::Killed(libc::SIGTERM)
        );
        assert!(wait_for(child.id() as i32).is_err());
    }

    #[test]
    fn the_descriptor_limit_is_at_its_most() {
        let now = raise_descriptor_limit().expect("raises");
        assert!(now > 0);
        assert_eq!(raise_descriptor_limit().expect("raises"), now);
    }
}
