//! Servers that are started for one handle.

use std::{
    ffi::OsString,
    fs::Permissions,
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

/// How long a server gets to end by itself once its connection is closed, and again after it was told to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the shell does to hand a listening socket over (sd_listen_fds(3)): descriptor 3, and the number of the
/// process, which stays when the program takes the shell's place. The words come to it as they are.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=1 && exec "$@""#;

/// A server. Dropped, it is ended, and waited for.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    /// It does not end with its connection, and has to be told.
    lasting: bool,
    /// Has its socket in it.
    _directory: Option<tempfile::TempDir>,
}

impl Child {
    /// Starts a server that talks on its standard input and output.
    pub fn on_stdio(argv: &[OsString]) -> io::Result<(Child, OwnedFd)> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        let child = Child {
            process,
            lasting: false,
            _directory: None,
        };
        Ok((child, ours.into()))
    }

    /// Starts a server with a listening socket, whose path is told.
    pub fn by_activation(argv: &[OsString], name: &str) -> io::Result<(Child, PathBuf)> {
        // Not below TMPDIR: the path of a socket has to be short.
        let directory = tempfile::Builder::new()
            .prefix("libnbd")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(Path::new("/tmp"))?;
        let path = directory.path().join("sock");
        let listener = UnixListener::bind(&path)?;
        let name = if name.is_empty() { "unknown" } else { name };
        let process = Command::new("/bin/sh")
            .args(["-c", HAND_OVER, "sh"])
            .args(argv)
            .env("LISTEN_FDNAMES", name)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()?;
        let child = Child {
            process,
            lasting: true,
            _directory: Some(directory),
        };
        Ok((child, path))
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal. One that ended already is not there any more.
    pub fn signal(&mut self, number: i32) -> Result<(), rustix::io::Errno> {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return Err(rustix::io::Errno::SRCH);
        }
        let signal = Signal::from_named_raw(number).ok_or(rustix::io::Errno::INVAL)?;
        kill_process(self.pid()?, signal)
    }

    fn pid(&self) -> Result<Pid, rustix::io::Errno> {
        Pid::from_raw(self.process.id() as i32).ok_or(rustix::io::Errno::SRCH)
    }

    /// Waits until it ends, for some time; true if it did.
    fn ends(&mut self) -> bool {
        if let Ok(pidfd) = self
            .pid()
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        {
            let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
            let limit = Timespec {
                tv_sec: PATIENCE.as_secs() as i64,
                tv_nsec: 0,
            };
            // Cut short by a signal, it is killed a little early.
            let _ = poll(&mut fds, Some(&limit));
        }
        // An error means that somebody else has waited for it.
        !matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.lasting && self.ends() {
            return;
        }
        // It may have ended long ago: then there is nobody to be told.
        let _ = self.signal(Signal::TERM.as_raw());
        if !self.ends() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
