//! `blkit mount` and `nbdfuse`: the life of a mount, with a real kernel's side of it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::FileExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::{
    bench::{Place, Server, eventually, have, output, run, told, wait},
    info::called,
};

/// A running mount; killed and unmounted if the test forgets it.
pub struct Mount {
    child: Child,
    point: PathBuf,
}

/// Whether anybody may mount anything here; says so if not.
fn may_mount() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = device {
        println!("SKIP: /dev/fuse: {error}");
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        return have(&["fusermount3"]);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = rights.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    /// capabilities(7)
    const CAP_SYS_ADMIN: u32 = 21;
    let may = rights.is_some_and(|bits| bits >> CAP_SYS_ADMIN & 1 != 0);
    if !may {
        println!("SKIP: this root may not mount");
    }
    may
}

impl Mount {
    /// Starts a command that mounts over `point` and tells when it is ready; `None`, after saying
    /// so, where nobody may mount.
    pub fn start(place: &Place, command: &mut Command, point: &str) -> Option<Mount> {
        may_mount().then(|| {
            let mut child = command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("starts");
            let ready = place.path("ready");
            eventually("it mounts", || {
                if child.try_wait().expect("looks").is_some() {
                    let mut errors = String::new();
                    let mut stderr = child.stderr.take().expect("a pipe");
                    stderr.read_to_string(&mut errors).expect("reads");
                    panic!("no mount: {errors}");
                }
                fs::read_to_string(&ready).is_ok_and(|text| text.ends_with('\n'))
            });
            Mount {
                child,
                point: place.path(point),
            }
        })
    }

    /// `blkit mount -P ready OPTIONS POINT WORDS`.
    pub fn ours(place: &Place, options: &[&str], point: &str, words: &[&str]) -> Option<Mount> {
        let all = [&["mount", "-P", "ready"], options, &[point], words].concat();
        Mount::start(place, &mut place.blkit(&all), point.split('/').next()?)
    }

    /// `nbdfuse -P ready POINT WORDS`.
    pub fn nbdfuse(place: &Place, point: &str, words: &[&str]) -> Option<Mount> {
        let mut command = called(place, "nbdfuse");
        command.args(["-P", "ready", point]).args(words);
        Mount::start(place, &mut command, point.split('/').next()?)
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.point)
    }

    /// Unmounts it as users do, and waits for its end: its status, and its standard error.
    pub fn unmount(mut self) -> (ExitStatus, String) {
        run(&mut unmounting(&self.point));
        self.end()
    }

    pub fn end(&mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.child);
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut errors).expect("reads");
        assert!(!self.is_mounted(), "nothing is left behind");
        (status, errors)
    }

    /// Unmounts it, and asserts that it ends cleanly and silently.
    pub fn stop(self) {
        let (status, errors) = self.unmount();
        assert!(status.success(), "{status}: {errors}");
        assert_eq!(errors, "");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if self.is_mounted() {
            let _ = Command::new("umount").arg("-l").arg(&self.point).status();
        }
    }
}

fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").expect("a table");
    let point = point.to_str().expect("unicode");
    table
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(point))
}

fn unmounting(point: &Path) -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new("umount"),
        false => Command::new("fusermount3"),
    };
    if !rustix::process::geteuid().is_root() {
        command.arg("-u");
    }
    command.arg(point);
    command
}

fn directory(place: &Place) -> PathBuf {
    let path = place.path("dir");
    fs::create_dir(&path).expect("a directory");
    path
}

#[test]
fn servers_are_reached_in_every_way() {
    let place = Place::new();
    directory(&place);
    let bytes = fs::read(place.noise("disk.img", 300_000)).expect("reads");
    let server = place.serve_here(&["disk.img"]);
    let tcp = place.serve(&["-p", "0", "disk.img"]);
    let port = tcp.uri.rsplit(':').next().expect("a port").to_owned();
    let blkit = env!("CARGO_BIN_EXE_blkit");
    let command = [blkit, "nbdkit", "-s", "file", "disk.img"];
    let activated = [blkit, "nbdkit", "-f", "file", "disk.img"];
    for words in [
        vec![&*server.uri],
        vec!["--unix", "s"],
        vec!["--tcp", "localhost", &port],
        [&["--command"][..], &command].concat(),
        [&["--socket-activation"][..], &activated].concat(),
        [&["["][..], &activated, &["]"]].concat(),
    ] {
        let Some(mount) = Mount::nbdfuse(&place, "dir/disk.raw", &words) else {
            return;
        };
        assert!(
            fs::read(place.path("dir/disk.raw")).expect("reads") == bytes,
            "{words:?}"
        );
        let listed = fs::read_dir(place.path("dir")).expect("lists");
        assert_eq!(listed.count(), 1);
        mount.stop();
        assert!(!place.path("ready").exists(), "the pid file is gone");
    }
    // A connected socket that somebody else has made.
    let socket = UnixStream::connect(place.path("s")).expect("connects");
    let mut command = called(&place, "nbdfuse");
    command.args(["-P", "ready", "dir", "--fd", "0"]);
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    let mount = Mount::start(&place, &mut command, "dir").expect("as before");
    assert!(fs::read(place.path("dir/nbd")).expect("reads") == bytes);
    mount.stop();
    server.stop();
    tcp.stop();
}

#[test]
fn a_file_becomes_the_disk_and_comes_back() {
    let place = Place::new();
    fs::write(place.path("naked"), "before").expect("writes");
    let bytes = fs::read(place.noise("disk.img", 70_000)).expect("reads");
    let Some(mount) = Mount::ours(&place, &[], "naked", &["disk.img"]) else {
        return;
    };
    assert!(fs::read(place.path("naked")).expect("reads") == bytes);
    mount.stop();
    assert_eq!(fs::read(place.path("naked")).expect("reads"), b"before");
}

#[test]
fn a_signal_ends_it_in_use_or_not() {
    for (signal, used) in [(1, false), (2, false), (15, true)] {
        let place = Place::new();
        let point = directory(&place);
        place.sparse("disk.img", 1 << 20);
        let Some(mut mount) = Mount::ours(&place, &[], "dir", &["disk.img"]) else {
            return;
        };
        let path = point.join("nbd");
        let mut file = File::options().write(true).open(&path).expect("opens");
        file.write_all(b"written").expect("writes");
        // In use, it is not unmounted by those who ask first.
        assert!(!output(&mut unmounting(&point)).status.success());
        assert!(mount.is_mounted());
        let mut file = Some(file).filter(|_| used);
        reactor::process::send_signal(mount.pid(), signal).expect("sends");
        // From sight at once; and gone, for who has it open still, before long.
        eventually("it is gone from sight", || !mount.is_mounted());
        let (status, errors) = mount.end();
        assert!(status.success(), "{status}: {errors}");
        if let Some(file) = &mut file {
            assert!(file.write_all(b"more").is_err());
        }
        let disk = fs::read(place.path("disk.img")).expect("reads");
        assert_eq!(&disk[..7], b"written");
    }
}

#[test]
fn a_killed_mount_leaves_nothing() {
    let place = Place::new();
    let point = directory(&place);
    for io in ["auto", "poll"] {
        let options = ["--io", io, "--threads", "2"];
        let Some(mut mount) = Mount::ours(&place, &options, "dir", &["memory", "1M"]) else {
            return;
        };
        // In use, by a file that is open.
        let file = File::open(point.join("nbd")).expect("opens");
        mount.child.kill().expect("kills");
        wait(&mut mount.child);
        eventually("it is unmounted", || !is_mounted(&point));
        assert!(file.read_at(&mut [0; 512], 4096).is_err());
        fs::remove_file(place.path("ready")).expect("what the dead has left");
    }
    fs::remove_dir(point).expect("a plain directory");
}

#[test]
fn a_server_that_is_killed_gives_errors_and_no_hang() {
    let place = Place::new();
    let point = directory(&place);
    let disk = place.sparse("disk.img", 8 << 20);
    let mut server = Server::start(place.blkit(&["serve", "-U", "s"]).arg(disk));
    let Some(mount) = Mount::nbdfuse(&place, "dir", &["--unix", "s"]) else {
        return server.stop();
    };
    let path = point.join("nbd");
    let file = File::options().read(true).write(true).open(&path);
    let mut file = file.expect("opens");
    file.write_all(&[7; 4096]).expect("writes");
    server.signal(9);
    eventually("the server is gone", || !server.is_running());
    let begin = Instant::now();
    let mut bytes = vec![0; 1 << 20];
    let error = file.read(&mut bytes).expect_err("no server");
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(file.write_all(&[8; 4096]).is_err());
    assert!(file.sync_all().is_err());
    assert!(begin.elapsed() < Duration::from_secs(20));
    drop(file);
    // What was written was never made durable: that is told in the end.
    let (status, errors) = mount.unmount();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("may be lost"), "{errors}");
    fs::remove_file(place.path("s")).expect("the socket of the dead");
}

#[test]
fn a_flush_that_failed_stays_failed() {
    if !have(&["nbdkit"]) {
        return;
    }
    let place = Place::new();
    let point = directory(&place);
    // It fails once, and would succeed ever after.
    let server = [
        "nbdkit",
        "eval",
        "get_size=echo 1M",
        "pread=dd if=/dev/zero bs=$3 count=1",
        "pwrite=cat >/dev/null",
        "can_flush=exit 0",
        "flush=if mkdir failed; then echo EIO >&2; exit 1; fi",
    ];
    let probe = output(place.command("nbdkit").args(["--dump-plugin", "eval"]));
    if !probe.status.success() {
        return println!("SKIP: nbdkit has no plugin eval: {}", told(&probe));
    }
    let words = [&["--socket-activation"][..], &server].concat();
    let Some(mount) = Mount::nbdfuse(&place, "dir", &words) else {
        return;
    };
    let path = point.join("nbd");
    let mut file = File::options().write(true).open(&path).expect("opens");
    file.write_all(&[7; 4096]).expect("writes");
    for _ in 0..3 {
        let error = file.sync_all().expect_err("lost");
        assert_eq!(error.raw_os_error(), Some(5));
    }
    drop(file);
    let (status, errors) = mount.unmount();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("may be lost"), "{errors}");
    assert!(place.path("failed").exists(), "the server was asked");
}

#[test]
fn what_cannot_be_mounted_leaves_nothing() {
    let place = Place::new();
    let point = directory(&place);
    let nbdfuse = |words: &[&str]| output(called(&place, "nbdfuse").args(words));
    for (words, why) in [
        (&["dir", "--unix", "nosuch"][..], "nosuch"),
        (&["dir", "nbd://localhost:1"], "refused"),
        (&["dir", "[", "sleep", "100", "]"], ""),
        (&["dir", "--command", "nosuchprogram"], "nosuchprogram"),
        (
            &[
                "-P",
                "/nosuch/pid",
                "dir",
                "--command",
                env!("CARGO_BIN_EXE_blkit"),
                "nbdkit",
                "-s",
                "null",
            ],
            "/nosuch/pid",
        ),
    ] {
        if words[0] == "-P" && !may_mount() {
            return;
        }
        // A program that never answers is for whoever started it to end.
        if words.contains(&"sleep") {
            let mut child = called(&place, "nbdfuse")
                .args(words)
                .spawn()
                .expect("starts");
            std::thread::sleep(Duration::from_millis(300));
            reactor::process::send_signal(child.id() as i32, 15).expect("sends");
            assert_eq!(wait(&mut child).code(), Some(1));
            continue;
        }
        let done = nbdfuse(words);
        assert_eq!(done.status.code(), Some(1), "{}", told(&done));
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(
            text.starts_with("nbdfuse: ") && text.contains(why),
            "{text}"
        );
        assert!(done.stdout.is_empty());
        assert!(!is_mounted(&point));
    }
    assert_eq!(place.names(), ["dir", "nbdfuse"]);
}

#[test]
fn mistakes_are_those_of_the_real_one() {
    if !have(&["nbdfuse"]) {
        return;
    }
    let place = Place::new();
    directory(&place);
    for words in [
        &[][..],
        &["dir"],
        &["--foo"],
        &["nosuch", "nbd://localhost"],
        &["dir", "-C", "1"],
        &["dir", "--tcp", "localhost"],
        &["dir", "--fd", "x"],
        &["dir", "[", "]"],
        &["--version"],
        &["--long-options"],
        &["--short-options"],
    ] {
        let ours = output(called(&place, "nbdfuse").args(words));
        let theirs = output(place.command("nbdfuse").args(words));
        assert_eq!(ours.status.code(), theirs.status.code(), "{words:?}");
        let first = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        };
        assert_eq!(first(&ours.stderr), first(&theirs.stderr), "{words:?}");
        if words != ["--version"] {
            assert_eq!(ours.stdout, theirs.stdout, "{words:?}");
        }
    }
    let help = run(called(&place, "nbdfuse").arg("--help"));
    let theirs = run(place.command("nbdfuse").arg("--help"));
    // Every mode that theirs lists is there.
    for line in theirs
        .lines()
        .filter(|line| line.contains("MOUNTPOINT[/FILENAME]"))
    {
        assert!(help.contains(line.trim()), "{line}");
    }
    let fuse = run(called(&place, "nbdfuse").arg("--fuse-help"));
    for option in [
        "-o kernel_cache",
        "-o allow_other",
        "-o uid=N",
        "-o auto_unmount",
    ] {
        assert!(fuse.contains(option), "{option}");
    }
}
