//! The servers and libraries, and how each is told of a disk.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::rows::{Client, Disk, Row};
use crate::{
    bench::{
        nbd::{make_file, world},
        servers::{Kind, Place, Server, World},
    },
    capi,
    tool::{self, Profile},
};

/// Size of all disks in bytes.
pub const SIZE: u64 = 1 << 30;

/// Queues that every server offers.
const QUEUES: u32 = 2;

/// Descriptors of a ring: three for each of 128 requests.
const QUEUE_SIZE: u32 = 512;

/// Programs, libraries and files.
pub struct Lab {
    world: World,
    null_vmm: PathBuf,
    /// A newer qemu-storage-daemon, or a script that runs one.
    newer_daemon: Option<PathBuf>,
    /// libblkio.
    theirs: PathBuf,
    /// Our library of its interface.
    ours: PathBuf,
}

impl Lab {
    /// Builds what is ours, and finds the others.
    pub fn new() -> Result<Lab, String> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let ours = match path("BLKIT_BENCH_OUR_LIBBLKIO") {
            Some(path) => path,
            None => {
                let words = ["--profile".to_owned(), "dist".to_owned()];
                capi::make(&capi::LIBBLKIO, &words)?
                    .folder
                    .join("libblkio.so.1")
            }
        };
        let lab = Lab {
            null_vmm: tool::build("blkit-null-vmm", Profile::Dist)?,
            world: world(SIZE, Profile::Dist)?,
            newer_daemon: path("BLKIT_BENCH_QSD"),
            theirs: path("BLKIT_BENCH_LIBBLKIO").unwrap_or_else(|| "libblkio.so.1".into()),
            ours,
        };
        for disk in [Disk::File, Disk::Tmpfs] {
            make_file(&lab.file(disk).expect("it is a file"), SIZE)?;
        }
        Ok(lab)
    }

    /// The file behind a disk, if it is one.
    pub fn file(&self, disk: Disk) -> Option<PathBuf> {
        match disk {
            Disk::Null => None,
            Disk::File | Disk::Direct => Some(self.world.folder.join("disk.img")),
            Disk::Tmpfs => Some(self.world.tmpfs_file.clone()),
        }
    }

    /// Starts a server. `Ok(None)` if it cannot serve such a disk, or is not here.
    pub fn start(&self, kind: Kind, disk: Disk) -> Result<Option<Server>, String> {
        let socket = self.world.folder.join(format!("{}.sock", kind.name()));
        let Some(command) = self.command(kind, disk, &socket) else {
            return Ok(None);
        };
        Server::launch(&self.world, kind, Place::Unix(socket), command).map(Some)
    }

    fn command(&self, kind: Kind, disk: Disk, socket: &Path) -> Option<Command> {
        let file = self.file(disk);
        match kind {
            Kind::Blkit => {
                let mut command = Command::new(&self.world.blkit);
                command.arg("serve");
                match &file {
                    // The other servers have the same file open.
                    Some(file) => command.args([file.as_os_str(), "lock=none".as_ref()]),
                    None => command.args(["null", &SIZE.to_string()]),
                };
                let place = format!("{},num-queues={QUEUES}", socket.display());
                command.args(["--vhost-user", &place]);
                Some(command)
            }
            Kind::Daemon => Some(daemon(
                "qemu-storage-daemon".as_ref(),
                file.as_deref(),
                socket,
            )),
            Kind::NewerDaemon => {
                let program = self.newer_daemon.as_deref()?;
                Some(daemon(program, file.as_deref(), socket))
            }
            Kind::NullVmm if disk == Disk::Null => {
                let mut command = Command::new(&self.null_vmm);
                command.arg(socket);
                command.args([SIZE.to_string(), QUEUES.to_string()]);
                Some(command)
            }
            _ => None,
        }
    }

    /// The load for a row, without the disk.
    pub fn load(&self, row: &Row, client: Client, seconds: f64) -> Command {
        let mut command = Command::new("timeout");
        // A library may wait for ever for a server that has gone.
        command.arg(format!("{}", seconds + 30.0));
        if row.one_cpu {
            command.args(["taskset", "-c", "0"]);
        }
        command.arg(&self.world.load).arg("disk");
        command.args(["--rw", if row.write { "write" } else { "read" }]);
        command.args(["--seconds", &seconds.to_string()]);
        for (name, value) in [
            ("--depth", u64::from(row.depth)),
            ("--queues", row.queues.into()),
            ("--block-size", row.block),
        ] {
            command.args([name, &value.to_string()]);
        }
        match client {
            Client::Theirs => command.arg("--library").arg(&self.theirs),
            Client::Ours => command.arg("--library").arg(&self.ours),
            Client::Ring { log, packed } => {
                let flag = |on| if on { "1" } else { "0" };
                command.args(["--client", "ring", "--inflight", flag(log)]);
                command.args(["--packed", flag(packed)]);
                command.args(["--queue-size", &QUEUE_SIZE.to_string()])
            }
        };
        if row.event {
            command.args(["--wait", "fd"]);
        }
        command
    }

    /// Says which server.
    pub fn on_server(command: &mut Command, client: Client, server: &Server) {
        let Place::Unix(socket) = &server.place else {
            unreachable!("they listen on Unix sockets")
        };
        command.arg("--path").arg(socket);
        if !matches!(client, Client::Ring { .. }) {
            let size = format!("queue-size={QUEUE_SIZE}");
            command.args(["--start-properties", &size]);
        }
    }

    /// Says which file.
    pub fn on_file(&self, command: &mut Command, disk: Disk) {
        let file = self.file(disk).expect("rows of files have one");
        command.args(["--driver", "io_uring", "--path"]).arg(file);
        if disk == Disk::Direct {
            command.args(["--properties", "direct=true"]);
        }
    }

    /// Which versions of the others were measured.
    pub fn peers(&self) -> String {
        let mut text = String::new();
        let newer = self.newer_daemon.as_deref();
        for program in [Some("qemu-storage-daemon".as_ref()), newer] {
            let Some(program) = program else { continue };
            let told = tool::output(Command::new(program).arg("--version")).unwrap_or_default();
            let version = told.lines().next().unwrap_or("not installed").to_owned();
            text.push_str(&format!("- peer: {version}\n"));
        }
        let theirs = std::fs::canonicalize(&self.theirs).unwrap_or_else(|_| self.theirs.clone());
        let name = theirs.file_name().unwrap_or_default();
        text.push_str(&format!("- libblkio: {}\n", name.to_string_lossy()));
        text
    }
}

/// qemu-storage-daemon, of any version: an I/O thread, and for files io_uring.
fn daemon(program: &Path, file: Option<&Path>, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--object", "iothread,id=io"]);
    let disk = match file {
        Some(file) => format!(
            "driver=file,node-name=disk,filename={},aio=io_uring,locking=off",
            file.display()
        ),
        None => format!("driver=null-co,node-name=disk,size={SIZE},read-zeroes=on"),
    };
    command.args(["--blockdev", &disk]);
    let export = format!(
        "type=vhost-user-blk,id=export,node-name=disk,writable=on,iothread=io,num-queues={QUEUES},\
         addr.type=unix,addr.path={}",
        socket.display()
    );
    command.args(["--export", &export]);
    command
}
