//! `--run`: the command in the original process, the server in the child.
//!
//! This way round, the shell that started us waits for the command's process, sees its status, and
//! gives it the terminal; the server is in the background of it all. The server's process gets no
//! part of standard input and output, ends when the original process does, and ignores the keys
//! that interrupt the command, because it is the command's end that ends the server.

use std::{
    ffi::{OsStr, OsString},
    io::{self, PipeReader, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, ExitStatus},
};

use block::{Error, ErrorKind, Result};
use reactor::process::{self, Ended, Signals};

use super::listen::Endpoints;

/// A command, and what it is told.
pub struct Captive {
    /// For `/bin/sh -c`.
    pub command: OsString,
    /// Shell variables: set in front of the command, not exported, so that they cannot change what
    /// the programs that it starts do.
    pub variables: Vec<(&'static str, OsString)>,
    /// Tells the user something.
    pub tell: fn(&str),
}

/// Runs `captive` while the server in the process `server` lives; the server says on `ready` that
/// clients may connect. Returns the command's status.
///
/// # Errors
/// The server did not start (it has said why), or the command could not be run.
pub fn run(
    captive: &Captive,
    mut endpoints: Vec<Endpoints>,
    server: i32,
    mut ready: PipeReader,
) -> Result<ExitCode> {
    // Were these left open, clients of a dead server would wait for ever.
    endpoints
        .iter_mut()
        .for_each(|endpoints| drop(endpoints.take_sockets()));
    let mut byte = [0];
    if ready.read(&mut byte).unwrap_or(0) == 0 {
        let ended = process::wait_for(server);
        return match ended {
            Ok(Ended::Exited(status)) => {
                Ok(ExitCode::from(u8::try_from(status.max(1)).unwrap_or(1)))
            }
            Ok(Ended::Killed(signal)) => Err(Error::new(
                ErrorKind::Gone,
                format!("signal {signal} killed the server before it was ready"),
            )),
            Err(error) => Err(Error::io("the server did not start", error)),
        };
    }
    let status = run_command(captive);
    // It may have died already: its status tells.
    let _ = process::send_signal(server, process::TERMINATE);
    let ended = process::wait_for(server)
        .map_err(|error| Error::io("cannot wait for the server", error))?;
    let status = status?;
    Ok(ExitCode::from(exit_status(status, ended, captive.tell)))
}

/// The status to exit with: the command's; if that is 0, the server's.
fn exit_status(command: ExitStatus, server: Ended, tell: fn(&str)) -> u8 {
    if let Some(signal) = command.signal() {
        tell(&format!("external command was killed by signal {signal}"));
        return 128u8.wrapping_add(signal as u8);
    }
    match (command.code().unwrap_or(1), server) {
        (0, Ended::Exited(status)) => status as u8,
        (0, Ended::Killed(signal)) => {
            tell(&format!("signal {signal} killed the server"));
            128u8.wrapping_add(signal as u8)
        }
        (status, _) => status as u8,
    }
}

/// Runs the command to its end, and passes on to it the signals that ask us to end.
fn run_command(captive: &Captive) -> Result<ExitStatus> {
    let cannot = |error: io::Error| Error::io("cannot run the command", error);
    let mut wanted = process::TERMINATION.to_vec();
    wanted.push(process::CHILD);
    // The mask and the descriptor come before the command, or its end could be missed.
    process::block_signals(&wanted).map_err(cannot)?;
    let signals = Signals::new(&wanted).map_err(cannot)?;
    let mut shell = Command::new("/bin/sh");
    shell.arg0("sh").arg("-c").arg(captive.script());
    let mut child: Child = process::with_clean_signals(&mut shell)
        .spawn()
        .map_err(cannot)?;
    loop {
        if let Some(status) = child.try_wait().map_err(cannot)? {
            return Ok(status);
        }
        let received = signals.wait().map_err(cannot)?;
        // A key pressed on the terminal has reached the command without our help.
        if received.signal != process::CHILD && !received.from_kernel {
            // It may have ended in this very moment.
            let _ = process::send_signal(child.id() as i32, received.signal);
        }
    }
}

impl Captive {
    /// The command with its variables set in front.
    fn script(&self) -> OsString {
        let mut script = OsString::new();
        for (name, value) in &self.variables {
            script.push(format!("{name}="));
            script.push(quote(value));
            script.push("\n");
        }
        script.push(&self.command);
        script
    }
}

/// A word of the shell that means `text`.
pub fn quote(text: &OsStr) -> OsString {
    let mut word = b"'".to_vec();
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => word.extend_from_slice(br"'\''"),
            _ => word.push(byte),
        }
    }
    word.push(b'\'');
    OsString::from_vec(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for text in ["", "a b", "it's", "$(echo x)", "a\nb\\'\"`"] {
            let mut script = OsString::from("printf %s ");
            script.push(quote(OsStr::new(text)));
            let output = Command::new("sh")
                .arg("-c")
                .arg(script)
                .output()
                .expect("sh");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }

    #[test]
    fn the_command_s_status_counts_first() {
        let exited = |status: i32| ExitStatus::from_raw(status << 8);
        assert_eq!(exit_status(exited(0), Ended::Exited(0), |_| {}), 0);
        assert_eq!(exit_status(exited(7), Ended::Exited(0), |_| {}), 7);
        assert_eq!(exit_status(exited(7), Ended::Killed(9), |_| {}), 7);
        assert_eq!(exit_status(exited(0), Ended::Exited(1), |_| {}), 1);
        assert_eq!(exit_status(exited(0), Ended::Killed(9), |_| {}), 137);
        assert_eq!(
            exit_status(ExitStatus::from_raw(9), Ended::Exited(0), |_| {}),
            137
        );
    }
}
