//! What every test needs: a place of its own, running servers, and peers.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for one test: working directory and `TMPDIR` of everything it starts.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        Place(
            tempfile::Builder::new()
                .prefix("e2e")
                .tempdir()
                .expect("a directory"),
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of `size` bytes, all holes.
    pub fn sparse(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        let file = fs::File::create(&path).expect("creates");
        file.set_len(size).expect("sets the size");
        path
    }

    /// A file of `size` bytes that repeat at no power of two.
    pub fn noise(&self, name: &str, size: usize) -> PathBuf {
        let path = self.path(name);
        let bytes: Vec<u8> = (0..size)
            .map(|i| ((i * 7 + i / 251) % 253) as u8 + 1)
            .collect();
        fs::write(&path, bytes).expect("writes");
        path
    }

    /// A program that runs here.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.0.path())
            .env("TMPDIR", self.0.path())
            .env_remove("BLKIT_LOG");
        command
    }

    /// `blkit` with these arguments.
    pub fn blkit(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_blkit"));
        command.args(words);
        command
    }

    /// Starts `blkit serve` with these arguments and waits until it tells its URI.
    pub fn serve(&self, words: &[&str]) -> Server {
        Server::start(self.blkit(&["serve"]).args(words))
    }

    /// Starts it on a Unix socket `s` of this place.
    pub fn serve_here(&self, words: &[&str]) -> Server {
        Server::start(self.blkit(&["serve", "-U", "s"]).args(words))
    }

    /// The names of what is here, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("lists");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

/// A running server; killed if the test forgets it.
pub struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub uri: String,
}

impl Server {
    pub fn start(command: &mut Command) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut uri = String::new();
        stdout.read_line(&mut uri).expect("reads");
        if uri.is_empty() {
            let output = child.wait_with_output().expect("ends");
            panic!("no URI: {}", String::from_utf8_lossy(&output.stderr));
        }
        Server {
            child,
            stdout,
            uri: uri.trim_end().to_owned(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        reactor::process::send_signal(self.pid() as i32, signal).expect("sends");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("looks").is_none()
    }

    /// Waits for its end: its status, and the lines of its standard error. It has printed nothing
    /// but the URI.
    pub fn end(self) -> (ExitStatus, String) {
        let (status, errors, more) = self.end_with_output();
        assert_eq!(more, "", "standard output has one line");
        (status, errors)
    }

    /// As [`Server::end`], with what it has printed after the URI.
    pub fn end_with_output(mut self) -> (ExitStatus, String, String) {
        let status = wait(&mut self.child);
        let mut more = String::new();
        self.stdout.read_to_string(&mut more).expect("reads");
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut errors).expect("reads");
        (status, errors, more)
    }

    /// Asks it to stop, and asserts that it does so cleanly and silently.
    pub fn stop(self) {
        self.signal(reactor::process::TERMINATE);
        let (status, errors) = self.end();
        assert!(status.success(), "{status}: {errors}");
        assert_eq!(errors, "");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits for a child, but not for ever.
pub fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().expect("looks");
        status.is_some()
    });
    status.expect("it ended")
}

/// Waits until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program to its end, and kills it if that does not come.
pub fn output(command: &mut Command) -> Output {
    // Copies of whole disks take their time on a busy machine.
    const LONG: Duration = Duration::from_secs(600);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    let pid = child.id() as i32;
    let (done, ended) = mpsc::channel::<()>();
    let guard = thread::spawn(move || {
        if ended.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            let _ = reactor::process::send_signal(pid, 9);
        }
    });
    let output = child.wait_with_output().expect("ends");
    drop(done);
    guard.join().expect("no panic");
    output
}

/// Runs a program to its end and asserts success; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program said, for messages.
pub fn told(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether all these programs are there; otherwise says which one the test is skipped for.
pub fn have(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&paths)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .collect();
    let missing = programs
        .iter()
        .find(|program| !dirs.iter().any(|dir| dir.join(program).is_file()));
    if let Some(program) = missing {
        println!("SKIP: {program} is not installed");
    }
    missing.is_none()
}

/// The program's path: some live where users do not look.
pub fn program(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}
