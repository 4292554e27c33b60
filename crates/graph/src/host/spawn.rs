//! Programs: run to their end on the reactor's pool, with bounded output and time.
//!
//! They start with an empty signal mask and SIGPIPE at its default, and all descriptors of this
//! process are close-on-exec, so that a program gets its three pipes and nothing else.

use std::{
    io::{self, Write},
    os::fd::OwnedFd,
    process::{Child, Command as Program, Stdio},
    time::{Duration, Instant},
};

use block::{
    Error, ErrorKind, Reactor, Result,
    host::{Command, Output},
};
use reactor::process::with_clean_signals;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// The most that is kept of standard output, and of standard error: more than any answer to a
/// request is long.
const OUTPUT_MAX: usize = 128 << 20;

/// Runs a program to its end.
pub(super) async fn run(reactor: &Reactor, command: Command) -> Result<Output> {
    let ran = reactor.blocking(move || run_here(&command)).await;
    ran.map_err(|lost| Error::new(ErrorKind::Internal, "cannot run a program").caused_by(lost))?
}

fn run_here(command: &Command) -> Result<Output> {
    let (name, arguments) = command
        .argv
        .split_first()
        .ok_or_else(|| Error::new(ErrorKind::Config, "no program is named"))?;
    let cannot = |error: io::Error| Error::io(format!("cannot run '{name}'"), error);
    let mut program = Program::new(name);
    program
        .args(arguments)
        .envs(command.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = with_clean_signals(&mut program).spawn().map_err(cannot)?;
    let deadline = command.timeout.map(|timeout| Instant::now() + timeout);
    let done = Exchange::new(&mut child, &command.stdin)
        .map_err(cannot)
        .and_then(|exchange| exchange.run(&mut child, deadline, name));
    if done.is_err() {
        // It may have ended by itself in this moment.
        let _ = child.kill();
    }
    let status = child.wait().map_err(cannot)?;
    let (stdout, stderr) = done?;
    Ok(Output {
        code: status.code(),
        stdout,
        stderr,
    })
}

/// The three pipes of a program, served in turn so that none of them can block the others.
struct Exchange<'a> {
    stdin: Option<std::process::ChildStdin>,
    left: &'a [u8],
    out: [(Option<OwnedFd>, Vec<u8>); 2],
    /// Readable when the program has ended; `None` where the system has no such thing.
    ended: Option<OwnedFd>,
}

impl<'a> Exchange<'a> {
    fn new(child: &mut Child, stdin: &'a [u8]) -> io::Result<Exchange<'a>> {
        let exchange = Exchange {
            stdin: child.stdin.take(),
            left: stdin,
            out: [
                (child.stdout.take().map(OwnedFd::from), Vec::new()),
                (child.stderr.take().map(OwnedFd::from), Vec::new()),
            ],
            ended: pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok(),
        };
        if let Some(stdin) = &exchange.stdin {
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        for fd in exchange.out.iter().filter_map(|(fd, _)| fd.as_ref()) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(exchange)
    }

    /// Moves bytes until the program has ended and what it wrote is read. A grandchild that keeps
    /// the pipes open is not waited for.
    fn run(
        mut self,
        child: &mut Child,
        deadline: Option<Instant>,
        name: &str,
    ) -> Result<(Vec<u8>, Vec<u8>)> {
        let cannot = |error: io::Error| Error::io(format!("cannot talk to '{name}'"), error);
        loop {
            let ended = child.try_wait().map_err(cannot)?.is_some();
            self.write();
            self.read().map_err(cannot)?;
            if self.out.iter().any(|(_, text)| text.len() > OUTPUT_MAX) {
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    format!("'{name}' wrote more than {OUTPUT_MAX} bytes"),
                ));
            }
            if ended {
                let [(_, stdout), (_, stderr)] = self.out;
                return Ok((stdout, stderr));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("'{name}' took too long and was stopped"),
                ));
            }
            self.wait(left).map_err(cannot)?;
        }
    }

    fn write(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.left.is_empty() {
            match stdin.write(self.left) {
                Ok(n) => self.left = &self.left[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It does not want to read the rest: that is its business.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn read(&mut self) -> io::Result<()> {
        for (fd, text) in &mut self.out {
            let Some(pipe) = fd else { continue };
            let mut buffer = [0; 16384];
            let most = OUTPUT_MAX + 1;
            while text.len() < most {
                match rustix::io::read(&*pipe, &mut buffer) {
                    Ok(0) => {
                        *fd = None;
                        break;
                    }
                    Ok(n) => text.extend_from_slice(&buffer[..n]),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn wait(&self, left: Option<Duration>) -> io::Result<()> {
        let stdin = self
            .stdin
            .as_ref()
            .map(|fd| PollFd::new(fd, PollFlags::OUT));
        let outputs = self.out.iter().filter_map(|(fd, _)| fd.as_ref());
        let readable = outputs
            .chain(&self.ended)
            .map(|fd| PollFd::new(fd, PollFlags::IN));
        let mut fds: Vec<PollFd<'_>> = stdin.into_iter().chain(readable).collect();
        // Without a descriptor for its end, look again soon.
        const LOOK: Duration = Duration::from_millis(20);
        let left = match self.ended {
            Some(_) => left,
            None => Some(left.map_or(LOOK, |left| left.min(LOOK))),
        };
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
