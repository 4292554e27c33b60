//! What every test needs: the libraries, the compiler, servers, and a place for files.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of a disk of [`Place::disk`].
pub const SIZE: usize = 1 << 20;

/// A libblkio to compile against.
pub struct Library {
    /// The folder of `blkio.h`.
    pub include: PathBuf,
    /// The folder of `libblkio.so`.
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
    command.args(["run", "-q", "-p", "xtask", "--", "capi", "libblkio"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    let said = stdout_of(&mut command);
    said.lines().last().expect("the folder").into()
}

/// The system's libblkio 1.5, if it is there.
pub fn system() -> Option<&'static Library> {
    static SYSTEM: OnceLock<Option<Library>> = OnceLock::new();
    let found = SYSTEM.get_or_init(|| {
        let is = Library {
            include: ask_pkg_config("includedir")?,
            lib: ask_pkg_config("libdir")?,
        };
        (ask(&["--modversion"])? == "1.5.0").then_some(is)
    });
    found.as_ref()
}

fn ask_pkg_config(variable: &str) -> Option<PathBuf> {
    ask(&[&format!("--variable={variable}")]).map(PathBuf::from)
}

fn ask(words: &[&str]) -> Option<String> {
    let mut command = Command::new("pkg-config");
    let said = command.args(words).arg("blkio").output().ok()?;
    let text = String::from_utf8(said.stdout).ok()?.trim().to_owned();
    (said.status.success() && !text.is_empty()).then_some(text)
}

/// A directory for one test.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Place {
        let mut builder = tempfile::Builder::new();
        Place(builder.prefix("blkio").tempdir().expect("a directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that runs here, and always speaks English.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.0.path()).env("LC_ALL", "C");
        command.stdin(Stdio::null());
        command
    }

    /// Compiles a program of `tests/c`.
    pub fn compile(&self, name: &str, library: &Library) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c");
        self.compile_file(&folder.join(format!("{name}.c")), library)
    }

    /// Compiles a file of C; warnings are errors.
    pub fn compile_file(&self, source: &Path, library: &Library) -> PathBuf {
        let program = self.path("program");
        let mut command = self.command("cc");
        command.args(["-std=gnu11", "-g", "-Wall", "-Wextra", "-Werror", "-o"]);
        command.arg(&program).arg("-I").arg(&library.include);
        command.arg(source).arg("-L").arg(&library.lib);
        command.args(["-lblkio", "-lpthread"]);
        command.arg(format!("-Wl,-rpath,{}", library.lib.display()));
        stdout_of(&mut command);
        program
    }

    /// A disk of zeroes, but for what it begins with.
    pub fn disk(&self, begin: &[u8]) -> PathBuf {
        let path = self.path("disk");
        let mut bytes = vec![0; SIZE];
        bytes[..begin.len()].copy_from_slice(begin);
        fs::write(&path, bytes).expect("writes");
        path
    }

    /// A `qemu-storage-daemon` that serves the disk on a socket, which is returned.
    pub fn storage_daemon(&self, disk: &Path) -> (Server, PathBuf) {
        let socket = self.path("vhost.sock");
        let mut command = self.command("qemu-storage-daemon");
        let (disk, at) = (disk.display(), socket.display());
        command.arg("--blockdev");
        command.arg(format!("driver=file,node-name=disk,filename={disk}"));
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=e,addr.type=unix,addr.path={at},node-name=disk,writable=on,\
             num-queues=2"
        ));
        let server = Server::start(&mut command, || UnixStream::connect(&socket).is_ok());
        (server, socket)
    }
}

/// A running server; killed when the test is over.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, listens: impl Fn() -> bool) -> Server {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut server = Server(child);
        let began = Instant::now();
        while !listens() {
            let ended = server.0.try_wait().expect("looks").is_some();
            assert!(
                !ended && began.elapsed() < PATIENCE,
                "{command:?}: no server"
            );
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
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

/// Whether this kernel lets us have a ring, without which one driver cannot be tried.
pub fn have_io_uring() -> bool {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: without a place for its parameters nothing is made.
    let made = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, nothing) };
    let why = std::io::Error::last_os_error();
    assert_eq!(made, -1, "a ring without parameters");
    let there = why.raw_os_error() == Some(libc::EFAULT);
    if !there {
        println!("SKIP: io_uring is refused here: {why}");
    }
    there
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
