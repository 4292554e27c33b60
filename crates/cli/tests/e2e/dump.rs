//! `nbddump`, beside the real one.

use std::{fs, os::unix::fs::FileExt, process::Output};

use crate::{
    bench::{Place, Server, eventually, have, output, run},
    info::{called, ended},
};

fn nbddump(place: &Place, words: &[&str]) -> Output {
    output(called(place, "nbddump").args(words))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs of one byte, of text and of zeroes, with holes, and an end in the middle of a line.
fn disk(place: &Place, name: &str) {
    let file = fs::File::create(place.path(name)).expect("creates");
    file.set_len((3 << 20) + 77).expect("a hole");
    let write = |at, bytes: &[u8]| file.write_all_at(bytes, at).expect("writes");
    write(3, b"hello, world\n\0\x01\x7f\x80\xff~ !");
    write(1000, &[5; 600]);
    write(4096, &[0; 9000]);
    write((1 << 20) - 7, &[7; 100]);
    write((2 << 20) + 16, &[8; 48]);
    write((3 << 20) + 70, b"end");
}

#[test]
fn it_tells_what_nbddump_tells() {
    if !have(&["nbdkit", "nbddump"]) {
        return;
    }
    let place = Place::new();
    disk(&place, "disk.img");
    fs::write(place.path("short"), "abc").expect("writes");
    fs::write(place.path("lines"), [b'x'; 64]).expect("writes");
    place.sparse("hole", 4096);
    place.sparse("empty", 0);
    for name in ["disk.img", "short", "lines", "hole", "empty"] {
        let (socket, path) = (place.path("a"), place.path(name));
        let mut nbdkit = place.command("nbdkit");
        nbdkit.args(["-f", "-U"]).arg(&socket);
        let mut server = nbdkit.arg("file").arg(path).spawn().expect("starts");
        eventually("nbdkit", || testkit::listens(&socket));
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        for options in [
            &[][..],
            &["--color"],
            &["-n", "0"],
            &["-n", "5", "--colour"],
            &["--length=1017"],
            &["--limit", "1100"],
            &["-n", "1048576"],
        ] {
            let words = [options, &[uri.as_str()]].concat();
            let theirs = output(place.command("nbddump").args(&words));
            let ours = nbddump(&place, &words);
            assert_eq!(ours.status.code(), theirs.status.code(), "{words:?}");
            assert_eq!(text(&ours), text(&theirs), "{name} {words:?}");
        }
        server.kill().expect("kills");
        server.wait().expect("waits");
        let _ = fs::remove_file(socket);
    }
    for words in [&["--short-options"][..], &["--no-such"], &[]] {
        let theirs = output(place.command("nbddump").args(words));
        assert_eq!(
            nbddump(&place, words).status.code(),
            theirs.status.code(),
            "{words:?}"
        );
    }
}

#[test]
fn a_part_of_any_source_is_told() {
    let place = Place::new();
    disk(&place, "disk.img");
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    let hello = "0000000003: 68 65 6c 6c 6f                                   |hello           |\n";
    let eights =
        "0000200010: 08 08 08 08 08 08 08 08  08 08 08 08 08 08 08 08 |................|\n*\n";
    for from in [a.uri.as_str(), "disk.img"] {
        let told = nbddump(&place, &["-o", "3", "-n", "5", from]);
        assert_eq!(text(&told), hello, "{told:?}");
        // Units count; a line that ends the part, and not the disk, is no last line.
        let words = ["--filter=offset", "-n", "48", from, "offset.offset=2097168"];
        assert_eq!(
            text(&nbddump(&place, &words)),
            eights.replace("0000200010", "0000000000")
        );
        let words = ["--skip=2M", "--limit=64", from];
        let told = text(&nbddump(&place, &words));
        // Zeroes in front are left out, as if more stood above.
        assert_eq!(told, format!("*\n{eights}"));
    }
    a.stop();
    let told = run(&mut place.blkit(&["dump", "-n", "17", "data", "(1 2 @256)*3"]));
    assert!(
        told.starts_with("0000000000: 01 02 00") && told.lines().count() == 2,
        "{told}"
    );
    let told = run(&mut place.blkit(&["dump", "memory", "1E"]));
    assert!(
        told.contains("\n*\nffffffffffffff0: 00 ") && told.lines().count() == 3,
        "{told}"
    );
}

#[test]
fn holes_are_never_read() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 41);
    let file = fs::File::options().write(true).open(place.path("disk.img"));
    file.expect("opens")
        .write_all_at(b"x", 1 << 40)
        .expect("writes");
    let told = text(&nbddump(&place, &["disk.img"]));
    assert!(told.contains("\n10000000000: 78 00 "), "{told}");
    assert_eq!(told.lines().count(), 6, "{told}");
}

#[test]
fn a_server_in_brackets_ends_with_it() {
    let place = Place::new();
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let words = [
        "--",
        "[",
        blkit,
        "nbdkit",
        "-P",
        "pid",
        "data",
        "1 @0x100 2",
        "]",
    ];
    let told = nbddump(&place, &words);
    let expected = "\
0000000000: 01 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 |................|
0000000010: 00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00 |................|
*
0000000100: 02                                               |.               |
";
    assert_eq!(text(&told), expected, "{told:?}");
    ended(&place);
}

#[test]
fn mistakes_are_one_line() {
    let place = Place::new();
    let table: [(&[&str], &str); 7] = [
        (
            &["-o", "5", "data", "1 2 3 4"],
            "nbddump: offset 5 is beyond the end of the disk (4 bytes)\n",
        ),
        (
            &["-o", "x", "null"],
            "nbddump: could not parse --offset option: x\n",
        ),
        (
            &["nbd+unix:///?socket=none"],
            "nbddump: nbd: cannot connect to none",
        ),
        (&["none.img"], "nbddump: file: "),
        (&["memroy", "1M"], "nbddump: unknown source 'memroy'\n"),
        (
            &["--", "[", "false", "]", "x"],
            "nbddump: nothing may stand beside a command",
        ),
        (
            &[
                "--filter=error",
                "data",
                "1",
                "error-pread=EIO",
                "error-pread-rate=100%",
            ],
            "nbddump: read at offset 0 failed: ",
        ),
    ];
    for (words, start) in table {
        let told = nbddump(&place, words);
        let errors = String::from_utf8_lossy(&told.stderr);
        assert_eq!(told.status.code(), Some(1), "{words:?} {told:?}");
        assert!(
            errors.starts_with(start) && told.stdout.is_empty(),
            "{words:?}: {errors}"
        );
    }
    // Whoever reads it may have seen enough.
    let mut command = called(&place, "nbddump");
    let mut child = command
        .args(["random", "16M"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let told = child.wait_with_output().expect("ends");
    assert!(told.status.success() && told.stderr.is_empty(), "{told:?}");
}
