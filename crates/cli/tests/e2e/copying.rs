//! Copies with care: hashed, cut short and gone on with, read back, slowed down, and with servers that
//! come and go.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    bench::{Place, Server, eventually, have, output},
    info::called,
};

fn nbdcopy(place: &Place, words: &[&str]) -> Output {
    output(called(place, "nbdcopy").args(words))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A disk whose hashes are known: data, zeroes across blocks, and a block that is not full.
fn known(place: &Place) {
    let mut bytes: Vec<u8> = (0..300_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    bytes[70_000..270_000].fill(0);
    fs::write(place.path("known.img"), bytes).expect("writes");
}

#[test]
fn a_disk_has_the_hash_that_nbdcopy_prints() {
    let place = Place::new();
    known(&place);
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("known.img"));
    // As nbdcopy 1.24.4 prints them.
    let table = [
        (
            "--blkhash",
            "cf938a2c107a12d58e0587faebb591e99f45496ce0dfa81a686347ea7f15303b",
        ),
        (
            "--blkhash=SHA256/4096",
            "1aa09c56225021036a95f0dd23a3bcc0103f239d798825d7986f4e740875a6db",
        ),
        ("--blkhash=md5", "c2b4798899a1de4e9fa93f71999be781"),
        (
            "--blkhash=sha1/256k",
            "752070cd25d3a49ecd696fd4af9ae0c914f61583",
        ),
        (
            "--blkhash=sha512/64k",
            "bd3c646a41e6e898497de3b2542a933b79a79c5f6dcd0fae511f12346d1d790771f468f0ea9a0e634f69af\
             12d442f83f31a6e09e6d5c10342c2684084c844ac6",
        ),
    ];
    for (option, sum) in table {
        for more in [
            &[][..],
            &["--synchronous"],
            &["--no-extents", "-S0"],
            &["--request-size=4k"],
        ] {
            for ends in [
                ["known.img", "null:"],
                [&a.uri, "null:"],
                [&a.uri, "copy.img"],
            ] {
                let words = [&[option], more, &ends].concat();
                assert_eq!(
                    printed(&nbdcopy(&place, &words)),
                    format!("{sum}\n"),
                    "{words:?}"
                );
            }
        }
        let input = fs::File::open(place.path("known.img")).expect("opens");
        let told = called(&place, "nbdcopy")
            .args([option, "--", "-", "null:"])
            .stdin(input)
            .output()
            .expect("runs");
        assert_eq!(printed(&told), format!("{sum}\n"), "{option}");
        let words = ["--blkhash-file=sum", option, &a.uri, "-"];
        let told = nbdcopy(&place, &words);
        assert_eq!(
            told.stdout,
            fs::read(place.path("known.img")).expect("reads")
        );
        let kept = fs::read_to_string(place.path("sum")).expect("reads");
        assert_eq!(kept, format!("{sum}\n"));
    }
    a.stop();
}

#[test]
fn the_real_one_finds_the_same_hashes() {
    if !have(&["nbdcopy"]) {
        return;
    }
    let place = Place::new();
    known(&place);
    let real = |words: &[&str]| output(place.command("nbdcopy").args(words));
    if !real(&["--blkhash", "known.img", "null:"]).status.success() {
        return println!("SKIP: this nbdcopy knows no --blkhash (libnbd 1.24 does)");
    }
    place.noise("noise.img", (5 << 20) + 513);
    place.sparse("sparse.img", 1 << 30);
    place.sparse("empty.img", 0);
    for disk in ["known.img", "noise.img", "sparse.img", "empty.img"] {
        for digest in ["md5", "sha1", "sha256", "sha512"] {
            for block in ["4096", "64k", "1M", "64M"] {
                let option = format!("--blkhash={digest}/{block}");
                let words = [option.as_str(), disk, "null:"];
                let (ours, theirs) = (nbdcopy(&place, &words), real(&words));
                assert_eq!(printed(&ours), printed(&theirs), "{words:?}");
            }
        }
    }
}

/// A copy that takes some seconds.
fn slow_copy(place: &Place, words: &[&str]) -> Child {
    called(place, "nbdcopy")
        .args(["--rate-limit=4M", "--request-size=64k"])
        .args(words)
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// Kills copies at different places until the last one is left alone.
fn cut_short(place: &Place, words: &[&str], state: &str) {
    let mut found = 0;
    for millis in [130, 650, 90, 1100, 370] {
        let mut child = slow_copy(place, words);
        thread::sleep(Duration::from_millis(millis));
        child.kill().expect("kills");
        child.wait().expect("ends");
        found += u32::from(place.path(state).exists());
    }
    assert!(found > 0, "something was kept");
    let kept = fs::read_to_string(place.path(state)).expect("reads");
    assert!(kept.contains("\ndone 0 "), "{kept}");
    let told = nbdcopy(place, words);
    assert!(told.status.success(), "{}", errors(&told));
    assert!(!place.path(state).exists(), "it is of no use any more");
}

#[test]
fn a_killed_copy_goes_on_where_it_was() {
    let place = Place::new();
    let path = place.noise("disk.img", 12 << 20);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[5_000_000..7_000_000].fill(0);
    fs::write(&path, &bytes).expect("writes");
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"));
    cut_short(
        &place,
        &["--resume", &a.uri, "copy.img"],
        "copy.img.blkit-resume",
    );
    assert!(fs::read(place.path("copy.img")).expect("reads") == bytes);
    fs::write(place.path("target.img"), vec![9; bytes.len()]).expect("writes");
    let b = Server::start(place.blkit(&["serve", "-U", "b"]).arg("target.img"));
    cut_short(&place, &["--resume=state", "disk.img", &b.uri], "state");
    b.stop();
    a.stop();
    assert!(fs::read(place.path("target.img")).expect("reads") == bytes);
}

#[test]
fn a_copy_of_something_else_is_not_gone_on_with() {
    let place = Place::new();
    place.noise("disk.img", 8 << 20);
    place.noise("other.img", 8 << 20);
    let mut child = slow_copy(&place, &["--resume", "disk.img", "copy.img"]);
    let state = place.path("copy.img.blkit-resume");
    eventually("something is kept", || state.exists());
    let pid = rustix::process::Pid::from_raw(child.id() as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
    let told = child.stderr.take().map(std::io::read_to_string);
    assert!(!child.wait().expect("ends").success());
    let told = told.expect("piped").expect("reads");
    assert!(
        told.contains("the same command goes on from there"),
        "{told}"
    );
    let before = fs::read(place.path("copy.img")).expect("reads");
    let refused = |words: &[&str], why: &str| {
        let told = nbdcopy(&place, words);
        assert_eq!(told.status.code(), Some(1));
        assert!(errors(&told).contains(why), "{words:?}: {}", errors(&told));
        assert!(fs::read(place.path("copy.img")).expect("reads") == before);
    };
    let other = ["--resume", "other.img", "copy.img"];
    refused(&other, "its source is another one");
    let file = fs::File::options()
        .write(true)
        .open(place.path("disk.img"))
        .expect("opens");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)
        .expect("dates back");
    refused(
        &["--resume", "disk.img", "copy.img"],
        "its source is another one",
    );
    refused(
        &["--resume", "--", "-", "copy.img"],
        "--resume needs disks at both ends",
    );
    refused(
        &["--resume", "disk.img", "null:"],
        "--resume needs disks at both ends",
    );
    refused(
        &["--resume", "disk.img", "nbd://localhost:1"],
        "--resume=FILE",
    );
    refused(
        &["--resume", "--blkhash", "disk.img", "copy.img"],
        "cannot be given together",
    );
    refused(
        &["--verify", "disk.img", "-"],
        "--verify needs disks at both ends",
    );
    // A copy that begins anew forgets the old one.
    assert!(nbdcopy(&place, &["other.img", "copy.img"]).status.success());
    assert!(!state.exists());
}

#[test]
fn what_was_written_is_read_back() {
    let place = Place::new();
    let bytes = fs::read(place.noise("disk.img", (3 << 20) + 700)).expect("reads");
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let told = nbdcopy(&place, &["--verify", "disk.img", "copy.img"]);
    assert!(told.status.success(), "{}", errors(&told));
    assert!(fs::read(place.path("copy.img")).expect("reads") == bytes);
    place.sparse("target.img", 4 << 20);
    let honest = ["[", blkit, "nbdkit", "file", "target.img", "]"];
    let told = nbdcopy(
        &place,
        &[&["--verify", "--", "disk.img"], &honest[..]].concat(),
    );
    assert!(told.status.success(), "{}", errors(&told));
    // It takes everything, and has nothing of it.
    let lying = ["[", blkit, "nbdkit", "null", "4M", "]"];
    let words = [&["--", "disk.img"], &lying[..]].concat();
    assert!(nbdcopy(&place, &words).status.success());
    let told = nbdcopy(&place, &[&["--verify"], &words[..]].concat());
    assert_eq!(told.status.code(), Some(1));
    let text = "verification failed: the destination differs at offset 0";
    assert!(errors(&told).contains(text), "{}", errors(&told));
    // Zeroes that were only promised.
    place.sparse("zeroes.img", 1 << 20);
    fs::write(place.path("full.img"), vec![9; 1 << 20]).expect("writes");
    let full = ["[", blkit, "nbdkit", "file", "full.img", "]"];
    let words = ["--verify", "--destination-is-zero", "--", "zeroes.img"];
    let told = nbdcopy(&place, &[&words[..], &full].concat());
    assert!(errors(&told).contains(text), "{}", errors(&told));
}

#[test]
fn the_rate_is_kept() {
    let place = Place::new();
    let bytes = fs::read(place.noise("disk.img", 3 << 20)).expect("reads");
    let begin = Instant::now();
    let told = nbdcopy(&place, &["--rate-limit=2M", "disk.img", "copy.img"]);
    assert!(told.status.success(), "{}", errors(&told));
    assert!(
        begin.elapsed() > Duration::from_millis(1300),
        "{:?}",
        begin.elapsed()
    );
    let begin = Instant::now();
    let told = nbdcopy(&place, &["--rate-limit=2M", "disk.img", "-"]);
    assert!(told.stdout == bytes);
    assert!(
        begin.elapsed() > Duration::from_millis(1300),
        "{:?}",
        begin.elapsed()
    );
}

/// A server on the socket `a`, which may be there from one that was killed.
fn serve_again(place: &Place) -> Server {
    let _ = fs::remove_file(place.path("a"));
    Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"))
}

#[test]
fn servers_may_come_late_and_go_in_between() {
    let place = Place::new();
    let bytes = fs::read(place.noise("disk.img", 8 << 20)).expect("reads");
    let uri = "nbd+unix:///?socket=a";
    let child = slow_copy(&place, &["--retries=50", "--reconnect=50", uri, "copy.img"]);
    thread::sleep(Duration::from_millis(300));
    let first = serve_again(&place);
    eventually("the copy has begun", || place.path("copy.img").exists());
    thread::sleep(Duration::from_millis(400));
    first.signal(9);
    first.end();
    thread::sleep(Duration::from_millis(300));
    let second = serve_again(&place);
    let told = child.wait_with_output().expect("ends");
    assert!(told.status.success(), "{}", errors(&told));
    second.stop();
    assert!(fs::read(place.path("copy.img")).expect("reads") == bytes);
}

#[test]
fn streams_become_sparse_or_not() {
    let place = Place::new();
    let mut bytes = vec![0; 4 << 20];
    bytes[1 << 20..][..4096].fill(7);
    let copy = |words: &[&str]| {
        let mut command: Command = called(&place, "nbdcopy");
        let mut child = command
            .args(words)
            .stdin(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(&bytes).expect("writes");
        drop(input);
        assert!(child.wait().expect("ends").success());
    };
    let blocks = |name: &str| fs::metadata(place.path(name)).expect("is there").blocks() * 512;
    copy(&["--", "-", "sparse.img"]);
    assert!(blocks("sparse.img") < 1 << 20, "{}", blocks("sparse.img"));
    copy(&["--allocated", "--", "-", "full.img"]);
    assert!(blocks("full.img") >= 4 << 20, "{}", blocks("full.img"));
    for name in ["sparse.img", "full.img"] {
        assert!(
            fs::read(place.path(name)).expect("reads") == bytes,
            "{name}"
        );
    }
    // On a disk zeroes are written, unless it has them.
    for (option, left) in [("--sparse=4k", 0), ("--destination-is-zero", 9)] {
        fs::write(place.path("target.img"), vec![9; 4 << 20]).expect("writes");
        let b = Server::start(place.blkit(&["serve", "-U", "b"]).arg("target.img"));
        copy(&[option, "--flush", "--", "-", &b.uri]);
        b.stop();
        let target = fs::read(place.path("target.img")).expect("reads");
        assert_eq!((target[0], target[1 << 20]), (left, 7), "{option}");
    }
}
