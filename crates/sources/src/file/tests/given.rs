//! Descriptors from the parent, and what stays in the page cache.

use std::{os::fd::AsRawFd, process::Command};

use super::*;

fn given(key: &str, fd: &impl AsRawFd, words: &[&str]) -> Arc<dyn Source> {
    let number = format!("{key}={}", fd.as_raw_fd());
    new(config(&[&[number.as_str()], words].concat())).unwrap()
}

fn refused(words: &[&str]) -> String {
    let args: Vec<Arg> = words.iter().map(|word| Arg::parse(word)).collect();
    make(&args).err().expect("refused").chain()
}

#[test]
fn a_descriptor_is_served_as_it_is_open() {
    let (_dir, path) = file_of(&[1; 5000]);
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    let source = given("fd", &file, &[]);
    source.ready().unwrap();
    let bench = Bench::open(source.clone());
    bench.write_flagged(100, b"hello", Flags::FUA).unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    assert_eq!(bench.read(0, 5000).unwrap()[100..105], *b"hello");
    drop(bench);
    let bench = Bench::open_as(source, Access::ReadOnly);
    assert!(bench.limits().read_only());
    let mut bytes = [0; 5];
    file.read_exact_at(&mut bytes, 100).unwrap();
    assert_eq!(bytes, *b"hello", "the parent's descriptor stays open");
}

#[test]
fn a_descriptor_for_reading_is_read_only_and_others_are_refused() {
    let (_dir, path) = file_of(&[1; 5000]);
    let reader = fs::File::open(&path).unwrap();
    let bench = Bench::open(given("fd", &reader, &[]));
    assert!(bench.limits().read_only());
    assert_eq!(bench.read(0, 10).unwrap(), [1; 10]);
    let open = |options: &mut fs::OpenOptions| options.open(&path).unwrap();
    let writer = open(fs::File::options().write(true));
    let appender = open(fs::File::options().read(true).append(true));
    for (fd, how) in [(&writer, "writing only"), (&appender, "appending")] {
        let source = given("fd", fd, &[]);
        let error = Bench::try_open(&*source, "", Access::ReadWrite)
            .err()
            .unwrap();
        assert!(
            error.chain().contains(&format!("is open for {how}")),
            "{}",
            error.chain()
        );
    }
    let (pipe, _other) = std::io::pipe().unwrap();
    let error = given("fd", &pipe, &[]).ready().unwrap_err();
    assert!(error.chain().contains("is a FIFO"), "{}", error.chain());
    let closed = new(config(&["fd=987654"])).unwrap().ready().unwrap_err();
    assert!(
        closed
            .chain()
            .starts_with("file: cannot use descriptor 987654: ")
    );
}

#[test]
fn a_directory_can_be_a_descriptor() {
    let (dir, path) = file_of(&[1; 5000]);
    let fd = fs::File::open(dir.path()).unwrap();
    let source = given("dirfd", &fd, &[]);
    source.ready().unwrap();
    let bench = Bench::try_open(&*source, "disk.img", Access::ReadWrite).unwrap();
    bench.write(0, &[2; 10]).unwrap();
    assert_eq!(
        fs::read(&path).unwrap()[..11],
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]
    );
    for name in ["", "../x", "none"] {
        assert!(
            Bench::try_open(&*source, name, Access::ReadWrite).is_err(),
            "{name}"
        );
    }
    let file = fs::File::open(&path).unwrap();
    let error = given("dirfd", &file, &[]).ready().unwrap_err();
    assert!(
        error.chain().ends_with("is not a directory"),
        "{}",
        error.chain()
    );
}

#[test]
fn exactly_one_place_is_named() {
    for (words, wanted) in [
        (
            &[][..],
            "file: file=<FILE>, dir=<DIR>, fd=<N> or dirfd=<N> is required",
        ),
        (&["a", "dir=b"], "file: file and dir cannot both be given"),
        (
            &["fd=5", "dirfd=6"],
            "file: fd and dirfd cannot both be given",
        ),
        (&["a", "fd=5"], "file: file and fd cannot both be given"),
        (
            &["fd=1"],
            "file: fd cannot be standard input, output or error",
        ),
        (
            &["dirfd=0"],
            "file: dirfd cannot be standard input, output or error",
        ),
        (&["fd=-1"], "file: fd=-1: a negative number is not allowed"),
        (
            &["fd=9", "direct=true"],
            "file: direct cannot be given with fd",
        ),
        (
            &["a", "cache=some"],
            "file: cache=some: must be one of default, none",
        ),
        (
            &["a", "cache=default", "reduce-memory-pressure=true"],
            "file: cache=default contradicts",
        ),
    ] {
        let why = refused(words);
        assert!(why.starts_with(wanted), "{why}");
    }
}

/// Bytes of a file that are in the page cache, as util-linux counts them.
fn cached(path: &Path) -> Option<u64> {
    let output = Command::new("fincore")
        .args(["-bnro", "RES"])
        .arg(path)
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[test]
fn memory_pressure_is_reduced() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = dir.path().join("big");
    for spelling in ["reduce-memory-pressure=true", "cache=none"] {
        fs::File::create(&path).unwrap().set_len(48 << 20).unwrap();
        let bench = Bench::open(source(&path, &[spelling]));
        let step = vec![5; 1 << 20];
        for i in 0..48 {
            bench.write(i << 20, &step).unwrap();
        }
        for _ in 0..4 {
            bench.plain(Op::Flush, 0, 0).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        for i in 0..48 {
            assert!(bench.read(i << 20, 1 << 20).unwrap() == step);
        }
        bench.plain(Op::Flush, 0, 0).unwrap();
        let evicted = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            cached(&path).is_none_or(|bytes| bytes <= 24 << 20)
        });
        match cached(&path) {
            None => return eprintln!("SKIP: no fincore"),
            Some(bytes) => assert!(evicted, "{bytes} bytes are cached"),
        }
    }
}
