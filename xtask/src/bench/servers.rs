//! The servers: how each is told to serve a disk, started, found ready, and stopped.

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::process;

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours.
    Blkit,
    /// nbdkit.
    Nbdkit,
    /// qemu-nbd.
    Qemu,
    /// nbd-server, of the nbd project.
    NbdServer,
    /// No server: a bare copy over the same kind of socket.
    Copy,
    /// qemu-storage-daemon, for disks of virtual machines.
    Daemon,
    /// A newer one.
    NewerDaemon,
    /// Our null disk on the rust-vmm crates.
    NullVmm,
}

impl Kind {
    /// All servers of NBD.
    pub const ALL: [Kind; 4] = [Kind::Blkit, Kind::Nbdkit, Kind::Qemu, Kind::NbdServer];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Blkit => "blkit",
            Kind::Nbdkit => "nbdkit",
            Kind::Qemu => "qemu-nbd",
            Kind::NbdServer => "nbd-server",
            Kind::Copy => "bare socket copy",
            Kind::Daemon => "qemu-storage-daemon",
            Kind::NewerDaemon => "newer qemu-storage-daemon",
            Kind::NullVmm => "rust-vmm null",
        }
    }

    /// The export's name.
    pub fn export(self) -> &'static str {
        if self == Kind::NbdServer { "disk" } else { "" }
    }
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// Reads as zeroes, forgets writes.
    Null,
    /// In the server's memory, written once from end to end.
    Memory,
    /// A file on tmpfs.
    Tmpfs,
    /// A file on the file system of the temporary folder, all in the page cache.
    File,
}

impl Disk {
    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Disk::Null => "null",
            Disk::Memory => "memory",
            Disk::Tmpfs => "file on tmpfs",
            Disk::File => "file in page cache",
        }
    }
}

/// Size of all disks in bytes, unless told otherwise.
pub const SIZE: u64 = 1 << 30;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Place {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of the loopback address.
    Tcp(u16),
}

impl Place {
    /// Options for `blkit-load`.
    pub fn load_words(&self) -> [String; 2] {
        match self {
            Place::Unix(path) => ["--unix".into(), path.display().to_string()],
            Place::Tcp(port) => ["--tcp".into(), format!("127.0.0.1:{port}")],
        }
    }

    /// The URI of an export there.
    pub fn uri(&self, export: &str) -> String {
        match self {
            Place::Unix(path) => format!("nbd+unix:///{export}?socket={}", path.display()),
            Place::Tcp(port) => format!("nbd://127.0.0.1:{port}/{export}"),
        }
    }

    fn answers(&self) -> bool {
        match self {
            Place::Unix(path) => UnixStream::connect(path).is_ok(),
            Place::Tcp(port) => TcpStream::connect(("127.0.0.1", *port)).is_ok(),
        }
    }
}

/// Files and programs that servers need.
pub struct World {
    /// Our server.
    pub blkit: PathBuf,
    /// Our load generator.
    pub load: PathBuf,
    /// For sockets, logs and the file in the page cache.
    pub folder: PathBuf,
    /// The file on tmpfs.
    pub tmpfs_file: PathBuf,
    /// Size of all disks in bytes.
    pub size: u64,
}

impl World {
    /// The file behind a disk, if it is one.
    pub fn file(&self, disk: Disk) -> Option<PathBuf> {
        match disk {
            Disk::Null | Disk::Memory => None,
            Disk::Tmpfs => Some(self.tmpfs_file.clone()),
            Disk::File => Some(self.folder.join("disk.img")),
        }
    }
}

impl World {
    /// Where nbd-server writes its process.
    fn pid_file(&self) -> PathBuf {
        self.folder.join("nbd-server.pid")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.tmpfs_file);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A running server. Ended when dropped.
pub struct Server {
    /// What it is.
    pub kind: Kind,
    /// Where it listens.
    pub place: Place,
    pid: u32,
    /// Ours to wait for, unless it went into the background.
    child: Option<Child>,
}

impl Server {
    /// Starts a server, if this kind can serve such a disk at such a place, and waits until it
    /// answers. `Ok(None)` if it cannot.
    pub fn start(
        world: &World,
        kind: Kind,
        disk: Disk,
        tcp: bool,
    ) -> Result<Option<Server>, String> {
        let place = match tcp {
            true => Place::Tcp(free_port()?),
            false => Place::Unix(world.folder.join(format!("{}.sock", kind.name()))),
        };
        match command(world, kind, disk, &place)? {
            None => Ok(None),
            Some(command) => Server::launch(world, kind, place, command).map(Some),
        }
    }

    /// Starts a server by a command, and waits until it answers at `place`.
    pub fn launch(
        world: &World,
        kind: Kind,
        place: Place,
        mut command: Command,
    ) -> Result<Server, String> {
        if let Place::Unix(path) = &place {
            let _ = std::fs::remove_file(path);
        }
        let log = world.folder.join(format!("{}.log", kind.name()));
        let told = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(told);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", kind.name()))?;
        let mut server = Server {
            kind,
            place,
            pid: child.id(),
            child: Some(child),
        };
        let patience = Instant::now() + Duration::from_secs(20);
        while !(server.find(world) && server.place.answers()) {
            if server.has_failed() || Instant::now() > patience {
                let why = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("{} does not serve: {}", kind.name(), why.trim()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The connection that asked counts as a client: let it go before anything is measured.
        std::thread::sleep(Duration::from_millis(50));
        Ok(server)
    }

    /// Finds the process of a server that goes into the background: nbd-server, which without that
    /// serves one client only. False if it is not there yet.
    fn find(&mut self, world: &World) -> bool {
        if self.kind != Kind::NbdServer || self.child.is_none() {
            return true;
        }
        let text = std::fs::read_to_string(world.pid_file()).unwrap_or_default();
        let Ok(pid) = text.trim().parse() else {
            return false;
        };
        if let Some(mut starter) = self.child.take() {
            let _ = starter.wait();
        }
        self.pid = pid;
        true
    }

    /// It ended before it served.
    fn has_failed(&mut self) -> bool {
        let background = self.kind == Kind::NbdServer;
        let status = self
            .child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten());
        status.is_some_and(|status| !background || !status.success())
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => !Path::new("/proc").join(self.pid.to_string()).exists(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time of it and its children so far, in seconds.
    pub fn cpu(&self) -> f64 {
        process::cpu_seconds(self.pid())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM lets servers with children end those too.
        let pid = self.pid.to_string();
        let kill = |signal: &str| {
            let _ = Command::new("kill").args([signal, &pid]).status();
        };
        if !self.has_ended() {
            kill("-TERM");
        }
        let patience = Instant::now() + Duration::from_secs(5);
        while !self.has_ended() {
            if Instant::now() > patience {
                kill("-KILL");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if let Place::Unix(path) = &self.place {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener
        .local_addr()
        .map_err(|error| error.to_string())?
        .port())
}

/// The command line of a server; none if it has no such disk.
fn command(
    world: &World,
    kind: Kind,
    disk: Disk,
    place: &Place,
) -> Result<Option<Command>, String> {
    let file = world.file(disk);
    Ok(match kind {
        Kind::Blkit => Some(blkit(world, disk, file.as_deref(), place)),
        Kind::Nbdkit => Some(nbdkit(world, disk, file.as_deref(), place)),
        Kind::Qemu => qemu(world, disk, file.as_deref(), place),
        Kind::NbdServer => match &file {
            Some(file) => Some(nbd_server(world, file, place)?),
            None => None,
        },
        Kind::Copy | Kind::Daemon | Kind::NewerDaemon | Kind::NullVmm => None,
    })
}

fn blkit(world: &World, disk: Disk, file: Option<&Path>, place: &Place) -> Command {
    let mut command = Command::new(&world.blkit);
    command.arg("serve");
    match place {
        Place::Unix(path) => command.arg("--unix").arg(path),
        Place::Tcp(port) => command.args(["--ip-addr", "127.0.0.1", "--port", &port.to_string()]),
    };
    match file {
        // The other servers have the same file open.
        Some(file) => command.args([file.as_os_str(), "lock=none".as_ref()]),
        None => command.args([disk.name(), &world.size.to_string()]),
    };
    command
}

fn nbdkit(world: &World, disk: Disk, file: Option<&Path>, place: &Place) -> Command {
    let mut command = Command::new("nbdkit");
    command.arg("--foreground");
    match place {
        Place::Unix(path) => command.arg("--unix").arg(path),
        Place::Tcp(port) => command.args(["--ipaddr", "127.0.0.1", "--port", &port.to_string()]),
    };
    match file {
        Some(file) => command.arg("file").arg(file),
        None => command.args([disk.name(), &world.size.to_string()]),
    };
    command
}

/// There is no disk in memory in qemu-nbd but null-co, which keeps nothing.
fn qemu(world: &World, disk: Disk, file: Option<&Path>, place: &Place) -> Option<Command> {
    let mut command = Command::new("qemu-nbd");
    command.args(["--persistent", "--shared=16"]);
    match place {
        Place::Unix(path) => command.arg("--socket").arg(path),
        Place::Tcp(port) => command.args(["--bind=127.0.0.1", "--port", &port.to_string()]),
    };
    match (disk, file) {
        (Disk::Null, _) => {
            let options = format!("driver=null-co,size={},read-zeroes=on", world.size);
            command.args(["--image-opts", &options]);
        }
        (_, Some(file)) => {
            command
                .args(["--format=raw", "--cache=writeback", "--aio=io_uring"])
                .arg(file);
        }
        _ => return None,
    }
    Some(command)
}

fn nbd_server(world: &World, file: &Path, place: &Place) -> Result<Command, String> {
    let listen = match place {
        Place::Unix(path) => format!("unixsock = {}", path.display()),
        Place::Tcp(port) => format!("listenaddr = 127.0.0.1\nport = {port}"),
    };
    let config = world.folder.join("nbd-server.conf");
    let text = format!(
        "[generic]\n{listen}\n[disk]\nexportname = {}\n",
        file.display()
    );
    std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let _ = std::fs::remove_file(world.pid_file());
    let mut command = Command::new("nbd-server");
    command
        .arg("-C")
        .arg(config)
        .arg("-p")
        .arg(world.pid_file());
    Ok(command)
}
