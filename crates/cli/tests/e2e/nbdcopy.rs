//! `nbdcopy`: what arrives, what does not need to travel, and what is said when it cannot.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    process::{Output, Stdio},
    time::Duration,
};

use crate::{
    bench::{Place, Server, eventually, have, output, run},
    info::{called, ended},
};

fn nbdcopy(place: &Place, words: &[&str]) -> Output {
    output(called(place, "nbdcopy").args(words))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Noise with a long hole, short zeroes, and an end that is no whole block.
fn disk(place: &Place) -> Vec<u8> {
    let path = place.noise("disk.img", 3 << 20);
    let file = fs::File::options().write(true).open(&path).expect("opens");
    file.set_len((9 << 20) + 513).expect("a hole behind");
    drop(file);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[(9 << 20)..].fill(7);
    bytes[100_000..170_000].fill(0);
    fs::write(&path, &bytes).expect("writes");
    // The hole is one again.
    let file = fs::File::options().write(true).open(&path).expect("opens");
    rustix::fs::fallocate(
        &file,
        rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE,
        3 << 20,
        6 << 20,
    )
    .expect("punches");
    bytes
}

fn same(place: &Place, name: &str, bytes: &[u8]) {
    let copy = fs::read(place.path(name)).expect("reads");
    assert!(
        copy == bytes,
        "{name}: {} bytes, {} wanted",
        copy.len(),
        bytes.len()
    );
}

#[test]
fn everything_arrives_in_every_direction() {
    let place = Place::new();
    let bytes = disk(&place);
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    for options in [
        &[][..],
        &["--request-size=4096", "--requests=3", "-C", "1"],
        &["--synchronous", "--no-extents", "--sparse=0"],
        &["--allocated", "--flush", "--queue-size=1M"],
        &["--sparse=64k", "--request-size=32M"],
    ] {
        let copy = |from: &str, to: &str| {
            let words = [options, &["--", from, to][..]].concat();
            let done = nbdcopy(&place, &words);
            assert!(done.status.success(), "{words:?}: {}", errors(&done));
        };
        copy(&a.uri, "copy.img");
        same(&place, "copy.img", &bytes);
        copy("disk.img", "copy.img");
        same(&place, "copy.img", &bytes);
        place.sparse("target.img", 10 << 20);
        // Whatever was there before is gone.
        fs::write(place.path("target.img"), vec![9; 10 << 20]).expect("writes");
        let b = Server::start(place.blkit(&["serve", "-U", "b"]).arg("target.img"));
        copy(&a.uri, &b.uri);
        b.stop();
        let target = fs::read(place.path("target.img")).expect("reads");
        assert!(target[..bytes.len()] == bytes, "{options:?}");
        assert!(
            target[bytes.len()..].iter().all(|byte| *byte == 9),
            "no more than that"
        );
        copy(&a.uri, "null:");
    }
    a.stop();
}

#[test]
fn holes_stay_holes_unless_they_are_to_be_allocated() {
    let place = Place::new();
    let bytes = disk(&place);
    let blocks = |name: &str| fs::metadata(place.path(name)).expect("is there").blocks() * 512;
    assert!(
        nbdcopy(&place, &["disk.img", "sparse.img"])
            .status
            .success()
    );
    same(&place, "sparse.img", &bytes);
    assert!(blocks("sparse.img") < 4 << 20, "{}", blocks("sparse.img"));
    assert!(
        nbdcopy(&place, &["--allocated", "disk.img", "full.img"])
            .status
            .success()
    );
    same(&place, "full.img", &bytes);
    assert!(blocks("full.img") >= 9 << 20, "{}", blocks("full.img"));
}

#[test]
fn it_is_good_for_other_servers_too() {
    if !have(&["nbdkit", "qemu-nbd", "qemu-img"]) {
        return;
    }
    let place = Place::new();
    let bytes = disk(&place);
    run(place
        .command("qemu-img")
        .args(["create", "-f", "qcow2", "x.qcow2", "16M"]));
    let qemu = ["[", "qemu-nbd", "-f", "qcow2", "x.qcow2", "]"];
    let done = nbdcopy(
        &place,
        &[&["--flush", "--", "disk.img"], &qemu[..]].concat(),
    );
    assert!(done.status.success(), "{}", errors(&done));
    let done = nbdcopy(&place, &[&["--"], &qemu[..], &["back.img"]].concat());
    assert!(done.status.success(), "{}", errors(&done));
    let back = fs::read(place.path("back.img")).expect("reads");
    assert!(back[..bytes.len()] == bytes);
    let done = nbdcopy(
        &place,
        &["--", "[", "nbdkit", "file", "disk.img", "]", "copy.img"],
    );
    assert!(done.status.success(), "{}", errors(&done));
    same(&place, "copy.img", &bytes);
}

#[test]
fn streams_are_ends_too() {
    let place = Place::new();
    let bytes = disk(&place);
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    let told = nbdcopy(&place, &[&a.uri, "-"]);
    assert!(
        told.status.success() && told.stdout == bytes,
        "{}",
        errors(&told)
    );
    a.stop();
    place.sparse("target.img", bytes.len() as u64);
    let b = Server::start(place.blkit(&["serve", "-U", "b"]).arg("target.img"));
    for to in [b.uri.as_str(), "copy.img"] {
        let mut command = called(&place, "nbdcopy");
        let mut child = command
            .args(["--", "-", to])
            .stdin(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(&bytes).expect("writes");
        drop(input);
        assert!(child.wait().expect("ends").success());
    }
    b.stop();
    same(&place, "target.img", &bytes);
    same(&place, "copy.img", &bytes);
}

#[test]
fn progress_is_told() {
    let place = Place::new();
    disk(&place);
    let told = nbdcopy(&place, &["--progress=2", "disk.img", "null:"]);
    assert!(errors(&told).starts_with("0/100\n") && errors(&told).ends_with("100/100\n"));
    let told = nbdcopy(&place, &["-p", "disk.img", "null:"]);
    let bar = format!("100% [{}]\n", "*".repeat(64));
    assert!(errors(&told).ends_with(&bar), "{}", errors(&told));
}

#[test]
fn what_cannot_be_copied_is_told_before_the_first_byte() {
    let place = Place::new();
    disk(&place);
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let small = [
        "--", "disk.img", "[", blkit, "nbdkit", "-P", "pid", "memory", "1k", "]",
    ];
    let told = nbdcopy(&place, &small);
    let text = "nbdcopy: error: destination size (1024) is smaller than source size (9437697)\n";
    assert!(errors(&told).starts_with(text), "{}", errors(&told));
    assert_eq!(told.status.code(), Some(1));
    ended(&place);
    fs::write(place.path("kept.img"), "kept").expect("writes");
    let table: [(&[&str], &str); 6] = [
        (&["none.img", "kept.img"], "nbdcopy: none.img: No such file"),
        (
            &["nbd+unix:///?socket=none", "kept.img"],
            "cannot connect to none",
        ),
        (&["disk.img", "none/x"], "nbdcopy: none/x: No such file"),
        (&["disk.img", "nbd://x:y"], "is not an NBD URI"),
        (&["--request-size=100", "a", "b"], "must be a power of 2"),
        (
            &["--blkhash=crc", "a", "b"],
            "unknown digest algorithm 'crc'",
        ),
    ];
    for (words, text) in table {
        let told = nbdcopy(&place, words);
        assert_eq!(told.status.code(), Some(1), "{words:?}");
        assert!(errors(&told).contains(text), "{words:?}: {}", errors(&told));
    }
    assert_eq!(fs::read(place.path("kept.img")).expect("reads"), b"kept");
}

#[test]
fn a_file_is_not_copied_to_itself() {
    let place = Place::new();
    fs::write(place.path("kept.img"), "kept").expect("writes");
    std::os::unix::fs::symlink("kept.img", place.path("other.img")).expect("links");
    let same = "source and destination are the same file";
    for to in ["kept.img", "./kept.img", "other.img"] {
        let told = nbdcopy(&place, &["kept.img", to]);
        assert!(errors(&told).contains(same), "{}", errors(&told));
    }
    let input = fs::File::open(place.path("kept.img")).expect("opens");
    let told = called(&place, "nbdcopy")
        .args(["--", "-", "kept.img"])
        .stdin(input)
        .output()
        .expect("runs");
    assert!(errors(&told).contains(same), "{}", errors(&told));
    assert_eq!(fs::read(place.path("kept.img")).expect("reads"), b"kept");
}

#[test]
fn a_server_in_brackets_ends_with_a_tool_that_is_killed() {
    let place = Place::new();
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let mut command = called(&place, "nbdcopy");
    command.args(["--synchronous", "--", "[", blkit, "nbdkit", "-P", "pid"]);
    command.args(["--filter=delay", "pattern", "16M", "rdelay=2", "]", "null:"]);
    let mut tool = command.spawn().expect("starts");
    eventually("the server", || place.path("pid").exists());
    std::thread::sleep(Duration::from_millis(200));
    tool.kill().expect("kills");
    tool.wait().expect("ends");
    let pid = fs::read_to_string(place.path("pid")).expect("a number");
    let process = std::path::Path::new("/proc").join(pid.trim());
    eventually("its end", || !process.exists());
    // Nobody was left who could have removed it.
    for name in place.names() {
        let path = place.path(&name);
        if path.is_dir() && path.join("sock").exists() {
            fs::remove_dir_all(path).expect("removes");
        }
    }
}

#[test]
fn a_copy_that_is_cut_short_says_how_far_it_came() {
    let place = Place::new();
    disk(&place);
    let words = [
        "serve",
        "-U",
        "a",
        "--filter",
        "error",
        "disk.img",
        "error=EIO",
        "error-pread-rate=100%",
    ];
    let a = Server::start(&mut place.blkit(&words));
    let told = nbdcopy(&place, &[&a.uri, "copy.img"]);
    assert_eq!(told.status.code(), Some(1));
    let text = errors(&told);
    assert!(
        text.contains("the destination is complete up to byte 0"),
        "{text}"
    );
    assert!(
        text.contains("read at offset") && text.contains("failed"),
        "{text}"
    );
    a.stop();
    // Told to stop in the middle: slow enough to be there in time.
    let words = [
        "serve", "-U", "b", "--filter", "delay", "disk.img", "rdelay=2",
    ];
    let b = Server::start(&mut place.blkit(&words));
    let mut command = called(&place, "nbdcopy");
    command
        .args(["--synchronous", &b.uri, "cut.img"])
        .stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    eventually("the copy has begun", || place.path("cut.img").exists());
    std::thread::sleep(Duration::from_millis(200));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
    let told = child.wait_with_output().expect("ends");
    assert_eq!(told.status.code(), Some(1));
    let text = errors(&told);
    assert!(
        text.contains("bytes were copied") && text.contains("was stopped"),
        "{text}"
    );
    b.stop();
}
