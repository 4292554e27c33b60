//! Sources to open, and a server of our own.

use std::{
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use blkit::{Builder, Disk};
use block::Device;
use exports::nbd::{Options, Server};
use reactor::Reactors;
use tempfile::TempDir;
use testkit::{DeviceSource, MemoryDisk, TestHost};

pub const SIZE: u64 = 8 << 20;

/// A disk in memory, served on a Unix socket.
pub struct Served {
    pub disk: Arc<MemoryDisk>,
    pub server: Arc<Server>,
    _loops: Arc<Reactors>,
    place: TempDir,
}

impl Served {
    pub fn new() -> Served {
        Served::with(Options::default())
    }

    pub fn with(options: Options) -> Served {
        let disk = MemoryDisk::new(SIZE);
        let device: Arc<dyn Device> = disk.clone();
        let loops = Arc::new(Reactors::start(1, reactor::Options::default()).expect("a loop"));
        let source = DeviceSource::new(device);
        let server = Server::new(source, TestHost::new(), options);
        let place = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(place.path().join("s")).expect("binds");
        let (accepting, inbox) = (server.clone(), loops.inbox(0).clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = accepting.clone();
                inbox.run(move |reactor| {
                    server.serve_socket(reactor, stream.into(), "test".into());
                });
            }
        });
        Served {
            disk,
            server,
            _loops: loops,
            place,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.place.path().join("s")
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket().display())
    }
}

/// One of each kind of source, all as large, and what has to live as long.
pub struct World {
    pub served: Served,
    pub place: TempDir,
}

impl World {
    pub fn new() -> World {
        World {
            served: Served::new(),
            place: tempfile::tempdir().expect("a directory"),
        }
    }

    pub fn file(&self) -> PathBuf {
        self.place.path().join("disk.img")
    }

    pub fn builders(&self) -> Vec<(&'static str, Builder)> {
        let file = std::fs::File::create(self.file()).expect("creates");
        file.set_len(SIZE).expect("a hole");
        let path = self.file().display().to_string();
        let offset = Disk::builder("memory").arg((SIZE + 4096).to_string());
        vec![
            ("memory", Disk::builder("memory").param("size", SIZE)),
            ("file", Disk::builder(path)),
            ("nbd", Disk::builder(self.served.uri())),
            ("filtered", offset.filter("offset").param("offset", 4096)),
        ]
    }
}

/// Waits until it is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < until, "in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
