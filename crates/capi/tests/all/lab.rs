//! What every test needs: the libraries, the compiler, servers, and a place for files.

use std::{
    fs,
    io::Read,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A libnbd to compile against.
pub struct Library {
    /// The folder of `libnbd.h`.
    pub include: PathBuf,
    /// The folder of `libnbd.so`.
    pub lib: PathBuf,
}

/// Ours, as `cargo xtask capi` builds it. `BLKIT_CAPI` may name a folder that has it already, as a
/// packager's build does: then nothing is built.
pub fn ours() -> &'static Library {
    static OURS: OnceLock<Library> = OnceLock::new();
    OURS.get_or_init(|| {
        let folder = match std::env::var_os("BLKIT_CAPI") {
            Some(folder) => folder.into(),
            None => build(),
        };
        Library {
            include: folder.join("include"),
            lib: folder,
        }
    })
}

/// In the profile of the tests, so that `--release` tests what is released.
fn build() -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "-q", "-p", "xtask", "--", "capi", "libnbd"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let said = stdout_of(&mut command);
    said.lines().last().expect("the folder").into()
}

/// The one of the system, if it is there.
pub fn system() -> Option<&'static Library> {
    static SYSTEM: OnceLock<Option<Library>> = OnceLock::new();
    let found = SYSTEM.get_or_init(|| {
        Some(Library {
            include: ask_pkg_config("includedir")?,
            lib: ask_pkg_config("libdir")?,
        })
    });
    found.as_ref()
}

/// The version of the system's.
pub fn system_version() -> Option<(u32, u32)> {
    let said = Command::new("pkg-config")
        .args(["--modversion", "libnbd"])
        .output()
        .ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    let mut numbers = text.trim().split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn ask_pkg_config(variable: &str) -> Option<PathBuf> {
    let said = Command::new("pkg-config")
        .arg(format!("--variable={variable}"))
        .arg("libnbd")
        .output()
        .ok()?;
    let text = String::from_utf8(said.stdout).ok()?;
    (said.status.success() && !text.trim().is_empty()).then(|| text.trim().into())
}

/// A directory for one test.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        let mut builder = tempfile::Builder::new();
        Place(builder.prefix("capi").tempdir().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that runs here, and always speaks English.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("LC_ALL", "C");
        command.env_remove("LIBNBD_DEBUG").stdin(Stdio::null());
        command
    }

    /// Compiles a program of `tests/c`.
    pub fn compile(&self, name: &str, library: &Library, output: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
        self.compile_file(&folder.join(format!("{name}.c")), library, output)
    }

    /// Compiles a file of C; warnings are errors.
    pub fn compile_file(&self, source: &Path, library: &Library, output: &str) -> PathBuf {
        let program = self.path(output);
        let mut command = self.command("cc");
        command.args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-o"]);
        command.arg(&program).arg("-I").arg(&library.include);
        command.arg(source).arg("-L").arg(&library.lib);
        command.args(["-lnbd", "-lpthread"]);
        command.arg(format!("-Wl,-rpath,{}", library.lib.display()));
        stdout_of(&mut command);
        program
    }

    /// `nbdkit` that listens on the socket `name` here.
    pub fn nbdkit(&self, name: &str, words: &[&str]) -> Server {
        let socket = self.path(name);
        let mut command = self.command("nbdkit");
        command.args(["-f", "-U"]).arg(&socket).args(words);
        Server::start(&mut command, || testkit::listens(&socket))
    }

    /// `nbdkit` that listens on a port.
    pub fn nbdkit_tcp(&self, words: &[&str]) -> (Server, u16) {
        let free = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let mut command = self.command("nbdkit");
        command.args(["-f", "-i", "127.0.0.1", "-p", &port.to_string()]);
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        (Server::start(command.args(words), listens), port)
    }
}

/// A running server; killed when the test is over.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, listens: impl Fn() -> bool) -> Server {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut server = Server(child);
        let began = Instant::now();
        while !listens() {
            if server.0.try_wait().expect("looks").is_some() || began.elapsed() > PATIENCE {
                let _ = server.0.kill();
                let mut why = String::new();
                let stderr = server.0.stderr.take();
                let _ = stderr.expect("a pipe").read_to_string(&mut why);
                panic!("no server: {why}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether these programs can be started; tells which cannot.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    programs.iter().all(|program| {
        let there = folders.iter().any(|folder| folder.join(program).is_file());
        if !there {
            println!("SKIP: {program} is not installed");
        }
        there
    })
}

/// Whether there is a compiler for C.
pub fn have_cc() -> bool {
    have(&["cc"])
}

/// Runs a program to its end, which comes in time or never.
pub fn output(command: &mut Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let pid = child.id();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if is_done.recv_timeout(5 * PATIENCE).is_err() {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status();
        }
    });
    let output = child.wait_with_output().expect("ends");
    let _ = done.send(());
    watch.join().expect("watches");
    output
}

/// Runs a program that must succeed: what it prints.
pub fn stdout_of(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A file of `size` bytes that repeat at no power of two.
pub fn noise(path: &Path, size: usize) -> Vec<u8> {
    let bytes: Vec<u8> = (0..size)
        .map(|i| ((i * 7 + i / 251) % 253) as u8 + 1)
        .collect();
    fs::write(path, &bytes).expect("writes");
    bytes
}
