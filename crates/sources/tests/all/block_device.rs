//! Block devices, by loop devices: needs root and losetup(8), and says so where it cannot run.

use std::{
    fs::{self, File, OpenOptions},
    future::Future,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use block::{
    Access, Data, Device, Errno, ErrorKind, Flags, Iov, Op, Outcome, Queue, QueueExt, Reactor,
    Result,
};
use reactor::{DriverKind, Loop, Options};
use rustix::fs::OFlags;
use sources::file::{self, FileConfig};
use testkit::{Drive, TestHost, conformance};

const MIB: u64 = 1 << 20;

/// A block device over a file.
struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Over a sparse file of `size` bytes, made in `dir`.
    fn new(dir: &Path, size: u64) -> Option<LoopDevice> {
        let backing = dir.join("backing");
        File::create(&backing).unwrap().set_len(size).unwrap();
        let output = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(&backing)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(LoopDevice {
                path: String::from_utf8(output.stdout).unwrap().trim().into(),
            }),
            Ok(output) => {
                eprintln!(
                    "SKIP: losetup: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                eprintln!("SKIP: losetup: {error}");
                None
            }
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// A file system of `size` bytes in memory.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]);
        match mount.arg(dir.path()).output() {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            other => {
                eprintln!("SKIP: cannot mount a small tmpfs: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

struct Real(Loop);

impl Drive for Real {
    fn reactor(&self) -> &Reactor {
        self.0.reactor()
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }
}

fn start(driver: DriverKind) -> Real {
    let options = Options {
        driver,
        ..Options::default()
    };
    Real(Loop::new(options).unwrap())
}

fn open(path: &Path, lock: file::Lock, direct: bool, access: Access) -> Result<Arc<dyn Device>> {
    let source = file::new(FileConfig {
        direct,
        lock,
        ..FileConfig::of(path)
    })?;
    let mut run = start(DriverKind::Poll);
    let mut cx = TestHost::new().context(run.reactor());
    cx.access = access;
    let opened = run.block_on(source.open(&cx));
    drop(cx);
    run.0.close(Duration::from_secs(5));
    opened
}

fn call(run: &mut Real, queue: &Rc<dyn Queue>, op: Op, at: u64, len: u64, data: Data) -> Outcome {
    let mut req = run.reactor().request(op, at, len);
    *req.data_mut() = data;
    run.block_on(queue.call(req)).take_outcome()
}

fn bytes(run: &Real, byte: u8, len: u64) -> Data {
    let iov = Iov::of_chunk(run.reactor().chunk(len as usize), len as usize);
    iov.write(0, &vec![byte; len as usize]);
    iov.into()
}

#[test]
fn a_block_device_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    for direct in [false, true] {
        let Some(device) = LoopDevice::new(dir.path(), 8 * MIB) else {
            return;
        };
        for driver in [DriverKind::Auto, DriverKind::Poll] {
            let mut run = start(driver);
            let make = |_: &Reactor| {
                open(&device.path, file::Lock::Auto, direct, Access::ReadWrite).unwrap()
            };
            let ran = conformance::run(make, &mut run);
            assert!(ran.len() > 10, "only {ran:?}");
            run.0.close(Duration::from_secs(5));
        }
    }
}

#[test]
fn discards_reach_the_device_and_odd_zeroes_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = LoopDevice::new(dir.path(), 8 * MIB) else {
        return;
    };
    let opened = open(&device.path, file::Lock::Auto, false, Access::ReadWrite).unwrap();
    assert_eq!(opened.limits().size, 8 * MIB);
    let mut run = start(DriverKind::Auto);
    let queue = opened.open_queue(run.reactor()).unwrap();
    let full = bytes(&run, 7, 8 * MIB);
    call(&mut run, &queue, Op::Write, 0, 8 * MIB, full).unwrap();
    call(&mut run, &queue, Op::Flush, 0, 0, Data::None).unwrap();
    let backing = dir.path().join("backing");
    let allocated = || {
        File::open(&backing).unwrap().sync_all().unwrap();
        fs::metadata(&backing).unwrap().blocks() * 512
    };
    assert!(allocated() >= 8 * MIB);

    call(&mut run, &queue, Op::Discard, MIB + 1, 4 * MIB, Data::None).unwrap();
    call(&mut run, &queue, Op::Flush, 0, 0, Data::None).unwrap();
    if allocated() > 5 * MIB {
        eprintln!("SKIP: this loop device does not pass discards on");
    }
    // Neither end is at a block of the device.
    call(
        &mut run,
        &queue,
        Op::WriteZeroes,
        6 * MIB + 3,
        MIB,
        Data::None,
    )
    .unwrap();
    let mut req = run.reactor().request(Op::Read, 6 * MIB, 2 * MIB);
    *req.data_mut() = Data::Wanted;
    let done = run.block_on(queue.call(req));
    let read = done.data().as_given().unwrap().to_vec();
    let zeroed = 3..MIB as usize + 3;
    assert!(
        read.iter()
            .enumerate()
            .all(|(i, b)| (*b == 0) == zeroed.contains(&i))
    );
}

#[test]
fn a_device_in_use_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let Some(device) = LoopDevice::new(dir.path(), MIB) else {
        return;
    };
    let open = |lock, access| open(&device.path, lock, false, access);
    // As mount(8), mdadm(8) and mkfs(8) do it.
    let claimed = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(&device.path)
        .unwrap();
    let error = open(file::Lock::Auto, Access::ReadWrite)
        .err()
        .expect("it is in use");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(
        error.chain().contains("mounted or otherwise in use"),
        "{}",
        error.chain()
    );
    open(file::Lock::Auto, Access::ReadOnly).unwrap();
    open(file::Lock::None, Access::ReadWrite).unwrap();
    drop(claimed);
    open(file::Lock::Auto, Access::ReadWrite).unwrap();
}

/// A real one, not an injected one: the device's own disk is full, so the page cache cannot be
/// written back.
#[test]
fn writes_that_were_lost_are_not_forgotten() {
    let Some(small) = SmallDisk::new("2M") else {
        return;
    };
    let Some(device) = LoopDevice::new(small.0.path(), 64 * MIB) else {
        return;
    };
    let opened = open(&device.path, file::Lock::Auto, false, Access::ReadWrite).unwrap();
    let mut run = start(DriverKind::Auto);
    let queue = opened.open_queue(run.reactor()).unwrap();
    call(&mut run, &queue, Op::Flush, 0, 0, Data::None).unwrap();
    for i in 0..8 {
        let full = bytes(&run, 7, MIB);
        call(&mut run, &queue, Op::Write, i * MIB, MIB, full).unwrap();
    }
    let lost = call(&mut run, &queue, Op::Flush, 0, 0, Data::None);
    assert!(lost.is_err(), "8 MiB do not fit into 2");
    for _ in 0..2 {
        let again = call(&mut run, &queue, Op::Flush, 0, 0, Data::None);
        assert_eq!(
            again.unwrap_err(),
            Errno::EIO,
            "the kernel itself has forgotten by now"
        );
    }
    let mut req = run.reactor().request(Op::Write, 0, 512);
    *req.data_mut() = bytes(&run, 7, 512);
    req.set_flags(Flags::FUA);
    let fua = run.block_on(queue.call(req)).take_outcome();
    assert_eq!(fua.unwrap_err(), Errno::EIO);
}
