use std::{
    fs,
    os::unix::{fs::FileExt, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use block::{Access, ErrorKind, Op, Source};
use tempfile::TempDir;

use super::*;
use crate::testing::{self, Bench};

const SIZE: u64 = 8 << 20;

fn config(words: &[&str]) -> BlkioConfig {
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    BlkioConfig::from_args(&args).expect("a configuration")
}

fn source(words: &[&str]) -> Arc<dyn Source> {
    new(config(words)).expect("a source")
}

/// A file of zeroes, and the word that names it.
fn disk() -> (TempDir, String) {
    let place = tempfile::tempdir().expect("a directory");
    let file = fs::File::create(place.path().join("disk")).expect("a file");
    file.set_len(SIZE).expect("its size");
    let word = format!("path={}", place.path().join("disk").display());
    (place, word)
}

/// Whether the driver can be had here.
fn io_uring() -> bool {
    let there = testing::start(reactor::DriverKind::Uring).map(|run| run.close(Duration::ZERO));
    there.is_some()
}

/// A server of the disk; killed when dropped.
struct Server(Child);

impl Server {
    fn start(place: &Path) -> Option<Server> {
        if !::blkio::DRIVERS.contains(&"virtio-blk-vhost-user") {
            println!("SKIP: there is no such driver yet");
            return None;
        }
        let (disk, socket) = (place.join("disk"), place.join("sock"));
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!(
            "driver=file,node-name=disk,discard=unmap,filename={}",
            disk.display()
        ));
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=e,addr.type=unix,addr.path={},node-name=disk,writable=on,\
             num-queues=2",
            socket.display()
        ));
        let Ok(child) = command.stderr(Stdio::null()).spawn() else {
            println!("SKIP: qemu-storage-daemon is not installed");
            return None;
        };
        let server = Server(child);
        let end = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < end, "no server");
            thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Opens a new disk, and keeps all of them.
fn fresh(made: &std::cell::RefCell<Vec<TempDir>>, more: &[&str]) -> Arc<dyn Device> {
    let (place, path) = disk();
    let words: Vec<&str> = ["io_uring", &path].iter().chain(more).copied().collect();
    let opened = testing::open_alone(&*source(&words), "");
    made.borrow_mut().push(place);
    opened.expect("it opens")
}

#[test]
fn a_file_does_what_every_disk_does() {
    if !io_uring() {
        return;
    }
    let made = Default::default();
    testing::conform(|| fresh(&made, &[]));
}

#[test]
fn a_direct_file_does_too() {
    if !io_uring() {
        return;
    }
    let made = Default::default();
    let (place, path) = disk();
    let try_it = source(&["io_uring", &path, "direct=true"]);
    if let Err(error) = testing::open_alone(&*try_it, "") {
        println!("SKIP: no O_DIRECT here: {}", error.chain());
        return;
    }
    drop(place);
    testing::conform(|| block::Normalize::wrap(fresh(&made, &["direct=true"])));
}

#[test]
fn a_server_of_vhost_user_does_too() {
    let servers = std::cell::RefCell::new(Vec::new());
    let (probe, _) = disk();
    if Server::start(probe.path()).is_none() {
        return;
    }
    testing::conform(|| {
        let (place, _) = disk();
        let server = Server::start(place.path()).expect("a server");
        let socket = format!("path={}", place.path().join("sock").display());
        let opened = testing::open_alone(&*source(&["virtio-blk-vhost-user", &socket]), "");
        servers.borrow_mut().push((server, place));
        block::Normalize::wrap(opened.expect("it opens"))
    });
}

#[test]
fn a_server_that_dies_fails_requests_and_the_next_one_is_found() {
    let (place, _) = disk();
    let Some(mut server) = Server::start(place.path()) else {
        return;
    };
    let socket = format!("path={}", place.path().join("sock").display());
    let source = source(&["virtio-blk-vhost-user", &socket]);
    let bench = Bench::open(source.clone());
    bench.write(4096, &[7; 4096]).expect("writes");
    server.kill();
    let error = bench.given(4096, 4096).expect_err("nobody is there");
    assert!(error.detail().is_some(), "{error}");
    fs::remove_file(place.path().join("sock")).expect("a socket");
    let _server = Server::start(place.path()).expect("another one");
    let again = Bench::open(source);
    assert_eq!(again.read(4096, 4096).expect("reads"), [7; 4096]);
}

#[test]
fn what_is_wrong_is_told() {
    let wrong = |words: &[&str]| {
        let error = new(config(words)).err().expect("it is wrong");
        assert_eq!(error.kind(), ErrorKind::Config);
        error.chain()
    };
    assert_eq!(wrong(&["nonsense"]), "driver=nonsense: Unknown driver name");
    if !io_uring() {
        return;
    }
    assert_eq!(wrong(&["io_uring", "x=1"]), "x=1: Unknown property name");
    let read_only = "capacity=1: Property is read-only";
    assert_eq!(wrong(&["io_uring", "capacity=1"]), read_only);
    let twice = "num-entries is given more than once";
    assert_eq!(
        wrong(&["io_uring", "num-entries=1", "num-entries=2"]),
        twice
    );
    let (_place, path) = disk();
    let opened = |words: &[&str]| testing::open_alone(&*source(words), "");
    let error = opened(&["io_uring", &path, "num-entries=x"])
        .err()
        .expect("no number");
    let said = "num-entries=x: Value must be a signed 32-bit integer";
    assert_eq!(error.chain(), said);
    let error = opened(&["io_uring", "path=/nonexistent"])
        .err()
        .expect("no file");
    assert!(
        error.chain().contains("No such file or directory"),
        "{}",
        error.chain()
    );
}

#[test]
fn who_may_only_read_does() {
    if !io_uring() {
        return;
    }
    let (place, path) = disk();
    let bench = Bench::open_as(source(&["io_uring", &path]), Access::ReadOnly);
    assert!(bench.limits().read_only());
    drop(bench);
    // And who may write does, from the same source afterwards.
    let bench = Bench::open(source(&["io_uring", &path, "get=capacity"]));
    assert_eq!(bench.limits().size, SIZE);
    bench.write(0, b"here").expect("writes");
    let mut bytes = [0; 4];
    let file = fs::File::open(place.path().join("disk")).expect("opens");
    file.read_exact_at(&mut bytes, 0).expect("reads");
    assert_eq!(&bytes, b"here");
    assert!(bench.limits().support(Op::Extents).is_offered());
}
