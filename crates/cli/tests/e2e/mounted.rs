//! A mounted disk's contents: what is read, written, zeroed, found and made durable through it.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    bench::{Place, eventually, have, program, run},
    mount::Mount,
};

fn writable(path: &Path) -> File {
    let file = File::options().read(true).write(true).open(path);
    file.expect("opens")
}

fn directory(place: &Place) {
    fs::create_dir(place.path("dir")).expect("a directory");
}

/// Where data begins and ends, as lseek(2) tells.
fn map(path: &Path) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(path).expect("opens");
    let mut runs = Vec::new();
    let mut at = 0;
    while let Ok(data) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(data)).expect("every file ends with a hole");
        runs.push((data, at));
    }
    runs
}

#[test]
fn a_qcow2_image_is_a_raw_file() {
    if !have(&["qemu-img", "qemu-nbd"]) {
        return;
    }
    let place = Place::new();
    directory(&place);
    let noise = fs::read(place.noise("noise", 3 << 20)).expect("reads");
    run(place
        .command("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "file.qcow2", "16M"]));
    let server = ["qemu-nbd", "-f", "qcow2", "file.qcow2"];
    let words = [&["--socket-activation"][..], &server].concat();
    let Some(mount) = Mount::nbdfuse(&place, "dir/file.raw", &words) else {
        return;
    };
    let mut file = writable(&place.path("dir/file.raw"));
    assert_eq!(file.metadata().expect("looks").len(), 16 << 20);
    file.seek(SeekFrom::Start(5_000_001)).expect("seeks");
    file.write_all(&noise).expect("writes");
    file.sync_all().expect("is durable");
    let mut back = vec![0; noise.len()];
    file.read_exact_at(&mut back, 5_000_001).expect("reads");
    assert!(back == noise);
    drop(file);
    mount.stop();
    run(place.command("qemu-img").args([
        "convert",
        "-f",
        "qcow2",
        "-O",
        "raw",
        "file.qcow2",
        "file.img",
    ]));
    let mut expected = vec![0; 16 << 20];
    expected[5_000_001..][..noise.len()].copy_from_slice(&noise);
    assert!(fs::read(place.path("file.img")).expect("reads") == expected);
    // And what qemu-img has written is read.
    let words = [&["["][..], &server, &["]"]].concat();
    let mount = Mount::nbdfuse(&place, "dir/file.raw", &words).expect("as before");
    assert!(fs::read(place.path("dir/file.raw")).expect("reads") == expected);
    let same = [
        "compare",
        "-q",
        "-f",
        "raw",
        "-F",
        "raw",
        "dir/file.raw",
        "file.img",
    ];
    run(place.command("qemu-img").args(same));
    mount.stop();
}

#[test]
fn holes_are_where_the_source_has_them() {
    let place = Place::new();
    directory(&place);
    let disk = place.sparse("disk.img", 64 << 20);
    let source = writable(&disk);
    for at in [1, 7, 40] {
        source
            .write_all_at(&[9; 200_000], at << 20)
            .expect("writes");
    }
    source.sync_all().expect("is there");
    let Some(mount) = Mount::ours(&place, &[], "dir", &["disk.img"]) else {
        return;
    };
    let path = place.path("dir/nbd");
    assert_eq!(map(&path), map(&disk));
    assert_eq!(map(&disk).len(), 3);
    let file = writable(&path);
    let keep = FallocateFlags::KEEP_SIZE;
    let punch = FallocateFlags::PUNCH_HOLE | keep;
    fallocate(&file, punch, 7 << 20, 1 << 20).expect("punches");
    fallocate(&file, FallocateFlags::ZERO_RANGE | keep, 40 << 20, 65536).expect("zeroes");
    let mut bytes = vec![1; 200_000];
    file.read_exact_at(&mut bytes, 7 << 20).expect("reads");
    assert!(bytes.iter().all(|byte| *byte == 0));
    file.read_exact_at(&mut bytes, 40 << 20).expect("reads");
    assert!(bytes[..65536].iter().all(|byte| *byte == 0) && bytes[65536..] == [9; 134_464]);
    assert_eq!(map(&path), map(&disk), "one hole more");
    assert_eq!(map(&disk)[0].0, 1 << 20);
    for (flags, errno) in [(FallocateFlags::empty(), 95), (keep, 95)] {
        let error = fallocate(&file, flags, 0, 4096).expect_err("not a disk's");
        assert_eq!(error.raw_os_error(), errno);
    }
    let beyond = fallocate(&file, punch, (64 << 20) - 4096, 8192).expect_err("beyond the end");
    assert_eq!(beyond.raw_os_error(), 28);
    drop(file);
    mount.stop();
}

#[test]
fn the_end_of_the_disk_is_the_end_of_the_file() {
    let place = Place::new();
    directory(&place);
    place.noise("disk.img", 1_000_000);
    let Some(mount) = Mount::ours(&place, &["-o", "umask=077"], "dir/d", &["disk.img"]) else {
        return;
    };
    let path = place.path("dir/d");
    let file = writable(&path);
    let found = file.metadata().expect("looks");
    assert_eq!((found.len(), found.mode() & 0o777), (1_000_000, 0o700));
    // Up to the end, and not further.
    assert_eq!(
        file.write_at(b"0123456789", 999_995).expect("some of it"),
        5
    );
    let error = file.write_at(b"x", 1_000_000).expect_err("no room");
    assert_eq!(error.raw_os_error(), Some(28));
    let mut bytes = [0; 16];
    assert_eq!(file.read_at(&mut bytes, 999_995).expect("reads"), 5);
    assert_eq!(&bytes[..5], b"01234");
    assert_eq!(file.read_at(&mut bytes, 2_000_000).expect("the end"), 0);
    file.set_len(1_000_000).expect("it has it already");
    for size in [0, 999_999, 1_000_001] {
        let error = file.set_len(size).expect_err("a disk keeps its size");
        assert_eq!(error.raw_os_error(), Some(1));
    }
    // A shell's `>` changes no size either.
    let mut again = File::create(&path).expect("opens");
    again.write_all(b"beginning").expect("writes");
    drop((again, file));
    assert_eq!(fs::metadata(&path).expect("looks").len(), 1_000_000);
    assert!(File::create(place.path("dir/other")).is_err());
    assert!(fs::remove_file(&path).is_err());
    mount.stop();
    let disk = fs::read(place.path("disk.img")).expect("reads");
    assert_eq!((&disk[..9], disk.len()), (&b"beginning"[..], 1_000_000));
    assert_eq!(&disk[999_995..], b"01234");
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let place = Place::new();
    directory(&place);
    place.noise("disk.img", 100_000);
    let before = fs::read(place.path("disk.img")).expect("reads");
    let server = place.serve_here(&["-r", "disk.img"]);
    let ours = Mount::ours(&place, &["-r"], "dir", &["disk.img"]);
    let Some(mount) = ours else {
        return server.stop();
    };
    let check = |mount: Mount| {
        let path = place.path("dir/nbd");
        assert_eq!(fs::metadata(&path).expect("looks").mode() & 0o777, 0o444);
        let error = File::options()
            .write(true)
            .open(&path)
            .expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(13));
        assert!(fs::read(&path).expect("reads") == before);
        mount.stop();
    };
    check(mount);
    // The export says so itself.
    check(Mount::nbdfuse(&place, "dir", &["--unix", "s"]).expect("as before"));
    server.stop();
}

#[test]
fn fio_finds_what_it_has_written() {
    if !have(&["fio"]) {
        return;
    }
    let place = Place::new();
    directory(&place);
    place.sparse("disk.img", 32 << 20);
    for (options, engine) in [
        (
            &["--threads", "3"][..],
            &["--ioengine=libaio", "--direct=1", "--iodepth=16"][..],
        ),
        (
            &["--io", "poll"],
            &["--ioengine=psync", "--numjobs=4", "--offset_increment=8M"],
        ),
        (&["-o", "direct_io"], &["--ioengine=psync", "--fsync=16"]),
        (&["-o", "kernel_cache"], &["--ioengine=mmap"]),
    ] {
        let Some(mount) = Mount::ours(&place, options, "dir", &["disk.img"]) else {
            return;
        };
        run(place
            .command("fio")
            .args(["--name=t", "--filename=dir/nbd", "--rw=randrw", "--size=8M"])
            .args([
                "--bsrange=4k-128k",
                "--verify=crc32c",
                "--verify_fatal=1",
                "--randseed=7",
            ])
            .args(engine));
        mount.stop();
    }
    for left in place.names().iter().filter(|name| name.ends_with(".state")) {
        fs::remove_file(place.path(left)).expect("fio's own");
    }
}

#[test]
fn a_file_system_is_made_and_checked_in_it() {
    if !have(&["mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = Place::new();
    directory(&place);
    fs::create_dir(place.path("files")).expect("a directory");
    place.noise("files/noise", 1 << 20);
    place.sparse("disk.img", 32 << 20);
    let Some(mount) = Mount::ours(&place, &[], "dir", &["disk.img"]) else {
        return;
    };
    run(place
        .command(program("mkfs.ext4"))
        .args(["-q", "-F", "-d", "files", "dir/nbd"]));
    let check = |path: &str| run(place.command(program("e2fsck")).args(["-f", "-n", path]));
    check("dir/nbd");
    mount.stop();
    check("disk.img");
}

/// FSYNC (linux/fuse.h).
const FSYNC: &str = "\\x14\\x00\\x00\\x00";

#[test]
fn fsync_is_answered_after_the_disk_is_synchronised() {
    if !have(&["strace"]) {
        return;
    }
    let place = Place::new();
    directory(&place);
    place.sparse("disk.img", 1 << 20);
    let Some(mount) = Mount::ours(&place, &["--io", "poll"], "dir", &["disk.img"]) else {
        return;
    };
    let trace = place.path("trace");
    let Some(mut strace) = crate::durable::attach(&place, mount.pid() as u32, &trace) else {
        mount.stop();
        let _ = fs::remove_file(trace);
        return println!("SKIP: strace may not attach to a process here");
    };
    let mut file = writable(&place.path("dir/nbd"));
    for round in 0..20_u8 {
        file.write_all(&[round; 512]).expect("writes");
        file.sync_all().expect("is durable");
    }
    drop(file);
    mount.stop();
    eventually("strace ends", || {
        strace.try_wait().expect("looks").is_some()
    });
    let text = fs::read_to_string(&trace).expect("a trace");
    assert_eq!(check(&text), 20, "fsync(2) was called so often");
    fs::remove_file(trace).expect("removes the trace");
}

/// Follows the trace: each FSYNC is answered only after an fdatasync(2) that began when it had been
/// read, and has returned. Returns how many there were.
fn check(trace: &str) -> u64 {
    // One at a time: the unique number of the one that is not answered, and how far the disk is.
    let (mut asked, mut begun, mut done, mut answered) = (None, false, false, 0);
    for line in trace.lines() {
        if line.contains("readv(") && line.contains(" = ") {
            let Some((_, packet)) = line.split_once("iov_base=\"") else {
                continue;
            };
            if packet.get(16..32) == Some(FSYNC) {
                asked = packet.get(32..64).map(str::to_owned);
                (begun, done) = (false, false);
            }
        }
        if line.contains("fdatasync(") {
            begun = asked.is_some();
        }
        if line.contains("fdatasync") && line.ends_with("= 0") {
            done = begun;
        }
        let answers = line.contains("writev(");
        if let Some(unique) = asked.take_if(|unique| answers && line.contains(&**unique)) {
            assert!(done, "{unique} is answered too early: {line}");
            answered += 1;
        }
    }
    answered
}

#[test]
fn a_copy_through_the_page_cache_is_whole() {
    let place = Place::new();
    directory(&place);
    let bytes = fs::read(place.noise("disk.img", (9 << 20) + 513)).expect("reads");
    let Some(mount) = Mount::ours(&place, &["--threads", "2"], "dir", &["disk.img"]) else {
        return;
    };
    let mut file = File::open(place.path("dir/nbd")).expect("opens");
    let mut back = Vec::new();
    file.read_to_end(&mut back).expect("reads");
    assert!(back == bytes);
    drop(file);
    mount.stop();
}
