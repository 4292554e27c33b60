//! `nbddiscard` and `nbdzero`: what they erase, and whom they ask before.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    process::{Output, Stdio},
};

use crate::{
    bench::{Place, Server, have, output},
    info::{called, ended},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a tool with this on its standard input.
fn answered(place: &Place, tool: &str, words: &[&str], answer: &str) -> Output {
    let mut child = called(place, tool)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut input = child.stdin.take().expect("piped");
    // It may not ask at all.
    let _ = input.write_all(answer.as_bytes());
    drop(input);
    child.wait_with_output().expect("ends")
}

#[test]
fn a_part_is_erased_and_nothing_beside_it() {
    let place = Place::new();
    place.noise("disk.img", 1 << 20);
    let before = fs::read(place.path("disk.img")).expect("reads");
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    let blocks = || {
        fs::metadata(place.path("disk.img"))
            .expect("is there")
            .blocks()
    };
    let full = blocks();
    for (tool, options, from, to) in [
        (
            "nbdzero",
            &["-y", "-o", "1000", "-l", "5k"][..],
            1000,
            1000 + 5120,
        ),
        (
            "nbddiscard",
            &["-y", "--offset=64k", "--length", "64k"],
            65536,
            131_072,
        ),
        (
            "nbddiscard",
            &["-y", "--fast-zero", "-o", "256k", "-l", "4k"],
            262_144,
            266_240,
        ),
        (
            "nbdzero",
            &["-qy", "-o", "960k", "-l", "1M"],
            983_040,
            1 << 20,
        ),
    ] {
        let told = output(called(&place, tool).args(options).arg(&a.uri));
        assert!(
            told.status.success() && told.stdout.is_empty(),
            "{options:?}: {told:?}"
        );
        let after = fs::read(place.path("disk.img")).expect("reads");
        assert!(after[from..to].iter().all(|byte| *byte == 0), "{options:?}");
        assert!(after[..1000] == before[..1000], "{options:?}");
        assert!(after[to..] == before[to..], "{options:?}");
    }
    assert!(blocks() <= full - 2 * 128, "{} {full}", blocks());
    // All of it; then the check has nothing to say against it.
    let check = |words: &[&str]| output(called(&place, "nbddiscard").args(words).arg(&a.uri));
    let told = check(&["-c"]);
    assert_eq!(
        (told.status.code(), text(&told.stdout).as_str()),
        (Some(1), "image has data at offset 0\n")
    );
    assert!(check(&["-c", "-q"]).stdout.is_empty());
    let told = check(&["-c", "-o", "64k", "-l", "64k"]);
    assert!(told.status.success() && told.stdout.is_empty(), "{told:?}");
    assert!(check(&["-y"]).status.success());
    assert_eq!(blocks(), 0);
    assert_eq!(
        text(&check(&["-c", "-v"]).stdout),
        "block status = True\nimage is already sparse\n"
    );
    assert!(check(&["-c", "-z"]).status.success());
    a.stop();
}

#[test]
fn it_asks_before() {
    let place = Place::new();
    fs::write(place.path("disk.img"), [7; 8192]).expect("writes");
    let question = "PERMANENTLY ERASE everything on disk.img bytes 4096 - 8191 (y/N)? ";
    for answer in ["", "\n", "n\n", "no\n", " y\n"] {
        let told = answered(&place, "nbdzero", &["-o", "4k", "disk.img"], answer);
        assert_eq!(told.status.code(), Some(1));
        assert_eq!(text(&told.stdout), question);
        assert_eq!(text(&told.stderr), "operation cancelled\n");
        assert_eq!(fs::read(place.path("disk.img")).expect("reads"), [7; 8192]);
    }
    for answer in ["y\n", "Yes\n", "y"] {
        fs::write(place.path("disk.img"), [7; 8192]).expect("writes");
        let told = answered(&place, "nbdzero", &["-o", "4k", "-q", "disk.img"], answer);
        assert!(
            told.status.success() && text(&told.stdout) == question,
            "{told:?}"
        );
        let bytes = fs::read(place.path("disk.img")).expect("reads");
        assert!(bytes[..4096] == [7; 4096] && bytes[4096..] == [0; 4096]);
    }
    // Nothing to erase is nothing to ask about.
    for (words, warning) in [
        (
            &["-o", "8k", "disk.img"][..],
            "warning: offset at or beyond the end of the disk\n",
        ),
        (&["-q", "-o", "1M", "disk.img"], ""),
        (&["-l", "0", "disk.img"], ""),
        (&["null", "0"], ""),
    ] {
        let told = answered(&place, "nbdzero", words, "");
        assert!(
            told.status.success() && text(&told.stdout) == warning,
            "{words:?} {told:?}"
        );
    }
}

#[test]
fn what_a_disk_cannot_do_is_told() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = Server::start(place.blkit(&["serve", "-r", "-U", "a"]).arg("disk.img"));
    let uri = a.uri.as_str();
    let table: [(&str, &[&str], i32, &str); 8] = [
        (
            "nbddiscard",
            &["-y", uri],
            1,
            "this server does not support the trim/discard operation\n",
        ),
        (
            "nbdzero",
            &["-y", uri],
            1,
            "this server does not support the zero operation\n",
        ),
        (
            "nbddiscard",
            &[],
            1,
            "NBD-URI is required.  See --help or nbddiscard(1) man page.\n",
        ),
        (
            "nbddiscard",
            &["-o", "1x", uri],
            1,
            "cannot parse offset/length parameter: 1x\n",
        ),
        (
            "nbddiscard",
            &["--foo"],
            2,
            "usage: nbddiscard [-h] [-l LENGTH] [-o OFFSET]",
        ),
        (
            "nbddiscard",
            &["-y", "nbd+unix:///?socket=none"],
            1,
            "nbddiscard: nbd: cannot connect to none",
        ),
        (
            "nbddiscard",
            &[
                "-y",
                "--filter=error",
                "memory",
                "1M",
                "error=ENOSPC",
                "error-trim-rate=100%",
            ],
            1,
            "nbddiscard: discard at offset 0 failed: ",
        ),
        (
            "nbdzero",
            &[
                "-y",
                "--filter=error",
                "memory",
                "1M",
                "error=EIO",
                "error-zero-rate=100%",
            ],
            1,
            "nbdzero: write zeroes at offset 0 failed: ",
        ),
    ];
    for (tool, words, status, start) in table {
        let told = output(called(&place, tool).args(words));
        assert_eq!(told.status.code(), Some(status), "{words:?} {told:?}");
        assert!(text(&told.stderr).starts_with(start), "{words:?}: {told:?}");
        assert!(told.stdout.is_empty(), "{words:?}: {told:?}");
    }
    let told = output(called(&place, "nbddiscard").args(["-c", uri]));
    assert!(told.status.success(), "{told:?}");
    a.stop();
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let words = [
        "-y", "--", "[", blkit, "nbdkit", "-P", "pid", "memory", "1M", "]",
    ];
    let told = output(called(&place, "nbdzero").args(words));
    assert!(told.status.success(), "{told:?}");
    ended(&place);
}

#[test]
fn it_says_what_nbddiscard_says() {
    if !have(&["nbdkit", "nbddiscard"]) {
        return;
    }
    let place = Place::new();
    place.noise("disk.img", 100_000);
    let file = fs::File::options().write(true).open(place.path("disk.img"));
    file.expect("opens")
        .set_len(1 << 20)
        .expect("a hole behind");
    let socket = place.path("a");
    let mut nbdkit = place.command("nbdkit");
    nbdkit.args(["-f", "-U"]).arg(&socket);
    let mut server = nbdkit.args(["file", "disk.img"]).spawn().expect("starts");
    crate::bench::eventually("nbdkit", || testkit::listens(&socket));
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    for options in [
        &["-c"][..],
        &["-c", "-q"],
        &["-c", "-z"],
        &["-c", "-o", "256k"],
        &["-c", "-o", "2M"],
        &["-y", "--fast-zero"],
        &["-y", "-l", "2M", "-o", "512k"],
        &[],
        &["-V"],
        &["--short-options"],
    ] {
        let words = [options, &[uri.as_str()]].concat();
        let theirs = output(place.command("nbddiscard").args(&words));
        let ours = output(called(&place, "nbddiscard").args(&words));
        assert_eq!(ours.status.code(), theirs.status.code(), "{words:?}");
        assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{words:?}");
        assert_eq!(text(&ours.stderr), text(&theirs.stderr), "{words:?}");
    }
    server.kill().expect("kills");
    server.wait().expect("waits");
    let _ = fs::remove_file(socket);
}
