//! Every source passes the suite that every device must pass, on every driver of the loop.
//!
//! Sources that only pretend to store (null, ones, full) or that verify what is written (pattern,
//! random, sparse-random) are opened for reading: the rest of the suite is about getting back what
//! was written.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use block::{Access, Device, ErrorKind, Reactor, Result, Source};
use config::Arg;
use reactor::{DriverKind, Loop, Options};
use testkit::{Drive, SimLoop, TestHost, conformance};

/// A real loop as a driver of tests.
struct Real(Loop);

impl Drive for Real {
    fn reactor(&self) -> &Reactor {
        self.0.reactor()
    }

    fn block_on<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.0.block_on(future)
    }
}

/// The loops that work here.
fn loops() -> Vec<Loop> {
    let start = |driver| {
        let options = Options {
            driver,
            ..Options::default()
        };
        match Loop::new(options) {
            Ok(run) => Some(run),
            Err(error) if driver == DriverKind::Uring => {
                eprintln!("SKIP: io_uring refused: {}", error.chain());
                None
            }
            Err(error) => panic!("{}", error.chain()),
        }
    };
    [DriverKind::Uring, DriverKind::Poll]
        .into_iter()
        .filter_map(start)
        .collect()
}

fn source(name: &str, words: &[&str]) -> Result<Arc<dyn Source>> {
    let mut entries = sources::registry().iter();
    let entry = entries.find(|entry| entry.name == name).expect(name);
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    (entry.make)(&args)
}

/// Opens a source on a loop of its own, because the suite makes its devices while its loop stands
/// still.
fn open(source: &dyn Source, access: Access) -> Result<Arc<dyn Device>> {
    let mut run = Loop::new(Options {
        driver: DriverKind::Poll,
        ..Options::default()
    })?;
    let mut cx = TestHost::new().context(run.reactor());
    cx.access = access;
    source.ready()?;
    let started = run.block_on(source.start(&cx.reactor));
    let opened = match started {
        Ok(()) => run.block_on(source.open(&cx)),
        Err(error) => Err(error),
    };
    drop(cx);
    run.close(Duration::from_secs(5));
    opened
}

/// Runs the suite against a source made of these words.
fn check(name: &str, words: &[&str], access: Access, least: usize) {
    let make = |_: &Reactor| open(&*source(name, words).unwrap(), access).unwrap();
    for run in loops() {
        let mut real = Real(run);
        let ran = conformance::run(make, &mut real);
        assert!(ran.len() >= least, "only {ran:?}");
        real.0.close(Duration::from_secs(5));
    }
}

#[test]
fn memory() {
    for size in ["size=8M", "size=8388609", "size=1M", "size=600"] {
        check("memory", &[size], Access::ReadWrite, 10);
        check("memory", &[size], Access::ReadOnly, 6);
    }
    let make = |_: &Reactor| {
        let source = source("memory", &["size=8M"]).unwrap();
        open(&*source, Access::ReadWrite).unwrap()
    };
    assert!(conformance::run(make, &mut SimLoop::new(1)).len() > 10);
}

/// A memory disk kept by this allocator, of some sizes.
fn memory_kept(allocator: &str) {
    for size in ["size=8M", "size=8388609", "size=600"] {
        check("memory", &[size, allocator], Access::ReadWrite, 10);
        check("memory", &[size, allocator], Access::ReadOnly, 6);
    }
    let make = |_: &Reactor| {
        let source = source("memory", &["size=8M", allocator]).unwrap();
        open(&*source, Access::ReadWrite).unwrap()
    };
    assert!(conformance::run(make, &mut SimLoop::new(1)).len() > 10);
}

#[test]
fn memory_compressed() {
    memory_kept("allocator=zstd");
}

#[test]
fn memory_in_one_piece() {
    memory_kept("allocator=malloc");
    let locked = ["size=600", "allocator=malloc,mlock=true"];
    match source("memory", &locked).and_then(|source| source.ready()) {
        Ok(()) => check("memory", &locked, Access::ReadWrite, 10),
        Err(error) => eprintln!("SKIP: memory cannot be locked: {}", error.chain()),
    }
}

/// The suite begins with a disk of zeroes.
const ZEROES: &str = "0*8M";

#[test]
fn data() {
    check("data", &[ZEROES], Access::ReadWrite, 10);
    check("data", &[ZEROES], Access::ReadOnly, 6);
    let sparse = "0 @^4M (0 @+1023)*4K @+1 <(:)";
    check("data", &[sparse], Access::ReadWrite, 10);
    check("data", &["base64=AAAA", "size=600"], Access::ReadWrite, 10);
}

#[test]
fn data_in_one_piece() {
    check("data", &[ZEROES, "allocator=malloc"], Access::ReadWrite, 10);
}

#[test]
fn data_compressed() {
    check("data", &[ZEROES, "allocator=zstd"], Access::ReadWrite, 10);
}

#[test]
fn null_ones_and_full() {
    // Not `zero`: the suite needs at least one byte.
    check("null", &["size=8M"], Access::ReadOnly, 6);
    check("ones", &["size=8M"], Access::ReadOnly, 6);
    check("full", &["size=8M"], Access::ReadOnly, 6);
}

#[test]
fn examples() {
    check("example1", &[], Access::ReadWrite, 6);
    for size in ["size=8M", "size=8388609"] {
        check("example3", &[size], Access::ReadWrite, 10);
        check("example4", &[size], Access::ReadWrite, 10);
        check("example3", &[size], Access::ReadOnly, 6);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    let file = format!("file={}", path.display());
    check("example2", &[&file], Access::ReadWrite, 6);
}

#[test]
fn info() {
    // The clock is another one each time it is read, which no disk of the suite may be.
    check("info", &["version"], Access::ReadWrite, 6);
    check("info", &["address"], Access::ReadWrite, 6);
}

#[test]
fn pattern_and_random() {
    for size in ["size=8M", "size=8388609"] {
        check("pattern", &[size], Access::ReadOnly, 6);
        check("pattern", &[size, "stride=1M"], Access::ReadOnly, 6);
        for fast in ["fast=false", "fast=true"] {
            check("random", &[size, "seed=1", fast], Access::ReadOnly, 6);
        }
        let words = [size, "seed=1", "percent=50", "runlength=64k"];
        check("sparse-random", &words, Access::ReadOnly, 6);
    }
}

/// The suite against fresh files of `size` bytes in `dir`.
fn check_files(dir: &Path, size: u64, words: &[&str], access: Access) {
    let next = AtomicU64::new(0);
    let fresh = || {
        let path = dir.join(format!("disk-{}", next.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(size).unwrap();
        let name = format!("file={}", path.display());
        let opened = open(
            &*source("file", &[&[name.as_str()], words].concat())?,
            access,
        );
        // What is open stays; the name is not needed any more.
        std::fs::remove_file(path).unwrap();
        opened
    };
    if let Err(error) = fresh()
        && error.kind() == ErrorKind::Unsupported
    {
        return eprintln!("SKIP: {words:?} in {}: {}", dir.display(), error.chain());
    }
    for run in loops() {
        let mut real = Real(run);
        let ran = conformance::run(|_| fresh().unwrap(), &mut real);
        assert!(ran.len() >= 6, "only {ran:?}");
        real.0.close(Duration::from_secs(5));
    }
}

#[test]
fn file_buffered() {
    let dir = tempfile::tempdir().unwrap();
    for size in [8 << 20, (8 << 20) + 1, 5000] {
        check_files(dir.path(), size, &[], Access::ReadWrite);
    }
    check_files(dir.path(), 8 << 20, &["fadvise=random"], Access::ReadOnly);
}

#[test]
fn file_direct() {
    let dir = tempfile::tempdir().unwrap();
    for size in [8 << 20, (8 << 20) + 1, 100_000, 700] {
        check_files(dir.path(), size, &["direct=true"], Access::ReadWrite);
    }
}

#[test]
fn split() {
    let dir = tempfile::tempdir().unwrap();
    let next = AtomicU64::new(0);
    for lengths in [&[5000, 0, 3 << 20, 513, 5 << 20][..], &[4096, 4096], &[700]] {
        let make = |access| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let paths: Vec<_> = (0..lengths.len())
                .map(|i| dir.path().join(format!("part-{number}-{i}")))
                .collect();
            let mut words = Vec::new();
            for (path, &len) in paths.iter().zip(lengths) {
                std::fs::File::create(path).unwrap().set_len(len).unwrap();
                words.push(path.display().to_string());
            }
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let opened = open(&*source("split", &words).unwrap(), access).unwrap();
            paths
                .iter()
                .for_each(|path| std::fs::remove_file(path).unwrap());
            opened
        };
        for run in loops() {
            let mut real = Real(run);
            for (access, least) in [(Access::ReadWrite, 10), (Access::ReadOnly, 6)] {
                let ran = conformance::run(|_| make(access), &mut real);
                assert!(ran.len() >= least, "only {ran:?}");
            }
            real.0.close(Duration::from_secs(5));
        }
    }
}

/// A file system of another kind than the one tests usually run on.
#[test]
fn file_on_tmpfs() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return eprintln!("SKIP: no /dev/shm to write to");
    };
    check_files(dir.path(), (8 << 20) + 1, &[], Access::ReadWrite);
    check_files(
        dir.path(),
        (8 << 20) + 1,
        &["direct=true"],
        Access::ReadWrite,
    );
}
