//! The words that name a server: a URI, or `[ COMMAND ARGS ... ]`, which is started.
//!
//! A command gets a listening socket by socket activation (`LISTEN_FDS`, sd_listen_fds(3)), as nbdkit
//! and qemu-nbd take it, so that it can have several clients. It never outlives the tool: it is ended
//! when the tool is done, and the kernel ends it when the tool is killed.

use std::{
    ffi::OsString,
    fs::Permissions,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use block::{Error, ErrorKind, Result};
use nbd::uri::{Transport, Uri};
use reactor::process;

/// How long a command gets to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that a word, or several in brackets, name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One word: a URI, a file, `-`.
    Word(OsString),
    /// A program and its arguments.
    Command(Vec<OsString>),
}

/// Sorts words into places.
///
/// # Errors
/// A bracket is missing, or nothing is inside.
pub fn take_places(words: Vec<OsString>) -> Result<Vec<Place>> {
    let wrong = |what: &str| Error::new(ErrorKind::Config, what);
    let mut places = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word != "[" {
            places.push(Place::Word(word));
            continue;
        }
        let mut command = Vec::new();
        loop {
            match words.next() {
                None => return Err(wrong("there is a [ without a ]")),
                Some(word) if word == "]" => break,
                Some(word) => command.push(word),
            }
        }
        if command.is_empty() {
            return Err(wrong("there is no command between [ and ]"));
        }
        places.push(Place::Command(command));
    }
    Ok(places)
}

/// A server that was started for this tool; ends with it.
pub struct Started {
    child: Child,
    socket: PathBuf,
    /// Has the socket in it.
    _directory: tempfile::TempDir,
}

/// What the shell does to hand the socket over: descriptor 3, and the number of the process, which
/// stays when the program takes the shell's place. The words come to it as they are.
const HAND_OVER: &str = r#"exec 3<&0 </dev/null && export LISTEN_PID=$$ LISTEN_FDS=1 && exec "$@""#;

impl Started {
    /// Starts a command. Call it on the main thread: the command ends with the thread.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn new(command: &[OsString]) -> Result<Started> {
        let cannot = |what: &str, error| Error::io(format!("cannot {what}"), error);
        let directory = tempfile::Builder::new()
            .prefix("blkit")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| cannot("make a directory for a socket", error))?;
        let socket = directory.path().join("sock");
        let listener = UnixListener::bind(&socket)
            .map_err(|error| cannot("make a socket for the command", error))?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", HAND_OVER, "sh"])
            .args(command)
            .stdin(Stdio::from(OwnedFd::from(listener)));
        process::with_clean_signals(&mut shell);
        process::ending_with_this_thread(&mut shell);
        let child = shell
            .spawn()
            .map_err(|error| cannot("start the command", error))?;
        Ok(Started {
            child,
            socket,
            _directory: directory,
        })
    }

    /// The way to it.
    pub fn uri(&self) -> String {
        let uri = Uri {
            transport: Transport::Unix {
                path: self.socket.clone(),
            },
            export: String::new(),
            tls: None,
        };
        uri.to_string()
    }

    fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nobody to be told.
        let _ = process::send_signal(self.child.id() as i32, process::TERMINATE);
        let until = Instant::now() + PATIENCE;
        while self.runs() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(words: &[&str]) -> Result<Vec<Place>, String> {
        let words = words.iter().map(OsString::from).collect();
        take_places(words).map_err(|error| error.to_string())
    }

    #[test]
    fn brackets_hold_a_command() {
        let word = |text: &str| Place::Word(text.into());
        let command = Place::Command(vec!["nbdkit".into(), "-r".into(), "null".into()]);
        let words = ["a", "[", "nbdkit", "-r", "null", "]", "-"];
        assert_eq!(places(&words), Ok(vec![word("a"), command, word("-")]));
        assert_eq!(
            places(&["[", "]"]).unwrap_err(),
            "there is no command between [ and ]"
        );
        assert_eq!(places(&["[", "x"]).unwrap_err(), "there is a [ without a ]");
    }
}
