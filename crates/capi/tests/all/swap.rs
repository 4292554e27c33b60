//! Other people's binaries on our library: `LD_LIBRARY_PATH` puts it before libnbd's.
//!
//! Each test also looks whether the loader really took ours.

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::lab::{PATIENCE, Place, have, noise, ours, output, stdout_of};

/// A program that gets our library, and whose loader tells what it loads.
fn swapped(place: &Place, program: &str) -> Command {
    let mut command = place.command(program);
    command
        .env("LD_LIBRARY_PATH", &ours().lib)
        .env("LD_DEBUG", "files")
        .env("LD_DEBUG_OUTPUT", place.path("loader"));
    command
}

/// Asserts that what ran last in `place` had our library.
fn assert_ours(place: &Place) {
    let ours = ours().lib.join("libnbd.so.0");
    let wanted = format!("calling init: {}", ours.display());
    let folder = place.path("loader");
    let folder = folder.parent().expect("a folder");
    let loaded = fs::read_dir(folder).expect("lists").any(|entry| {
        let entry = entry.expect("an entry");
        let is_told = entry.file_name().to_string_lossy().starts_with("loader.");
        is_told && fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(&wanted))
    });
    assert!(loaded, "nobody loaded {}", ours.display());
}

/// The URI of the socket `name` here.
fn uri(place: &Place, name: &str) -> String {
    format!("nbd+unix:///?socket={}", place.path(name).display())
}

/// Whether this Python has the module, which Debian packages apart from the rest.
fn have_module() -> bool {
    if !have(&["/usr/bin/python3"]) {
        return false;
    }
    let asked = output(Command::new("/usr/bin/python3").args(["-c", "import nbd"]));
    if !asked.status.success() {
        println!("SKIP: Python's nbd module is not installed");
    }
    asked.status.success()
}

const PYTHON: &str = r#"
import sys, nbd
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert h.get_size() == 1 << 20, h.get_size()
data = bytes(range(256)) * 16
h.pwrite(data, 4096)
assert h.pread(4096, 4096) == data

done = []
buf = nbd.Buffer(65536)
def completed(error):
    done.append(error.value)
    return 1
for i in range(100):
    h.aio_pread(buf, 0, completed)
while len(done) < 100:
    h.poll(-1)
assert done == [0] * 100, done

chunks = []
def chunk(subbuf, offset, status, error):
    chunks.append((offset, len(subbuf), status))
h.pread_structured(8192, 0, chunk)
assert sum(length for _, length, _ in chunks) == 8192, chunks

extents = []
def extent(metacontext, offset, entries, error):
    extents.append((metacontext, offset, sum(entries[0::2])))
h.block_status(1 << 20, 0, extent)
assert extents == [("base:allocation", 0, 1 << 20)], extents

def bad(metacontext, offset, entries, error):
    error.value = 18
    raise RuntimeError("no")
try:
    h.block_status(1 << 20, 0, bad)
    assert False
except nbd.Error as error:
    assert error.errno == "EXDEV" or error.errnum in (18, 71), error

try:
    h.pread(512, 1 << 20)
    assert False
except nbd.Error as error:
    assert error.errno == "EINVAL", error
    assert error.string.startswith("nbd_pread: request out of bounds"), error
h.shutdown()
try:
    h.pread(512, 0)
    assert False
except nbd.Error as error:
    assert "CLOSED" in error.string, error
del h
print("ok")
"#;

#[test]
fn pythons_module() {
    if !have(&["nbdkit"]) || !have_module() {
        return;
    }
    let place = Place::new();
    let _server = place.nbdkit("s", &["memory", "1M"]);
    let mut command = swapped(&place, "/usr/bin/python3");
    command.args(["-c", PYTHON, &uri(&place, "s")]);
    assert_eq!(stdout_of(&mut command), "ok\n");
    assert_ours(&place);
}

#[test]
fn nbdsh() {
    if !have(&["nbdkit", "nbdsh"]) || !have_module() {
        return;
    }
    let place = Place::new();
    let _server = place.nbdkit("s", &["pattern", "1M"]);
    // It runs the first python3 of PATH, which may be another one without the module.
    let path = "/usr/bin:/bin:/usr/sbin:/sbin";
    let mut command = swapped(&place, "nbdsh");
    command.env("PATH", path);
    command.args(["-u", &uri(&place, "s"), "-c", "print('%r' % h.pread(16,0))"]);
    let said = stdout_of(&mut command);
    assert!(said.contains(r"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08"));
    assert_ours(&place);

    let mut command = swapped(&place, "nbdsh");
    command.env("PATH", path);
    let session = "h.connect_command(['nbdkit','-s','memory','1M'])\n\
                   h.pwrite(b'hello', 100)\nprint(h.pread(5,100), h.get_size())";
    let said = stdout_of(command.args(["-c", session]));
    assert_eq!(said, "bytearray(b'hello') 1048576\n");
}

#[test]
fn fio_verifies() {
    if !have(&["nbdkit", "fio"]) {
        return;
    }
    let engines = stdout_of(Command::new("fio").arg("--enghelp"));
    if !engines.lines().any(|line| line.trim() == "nbd") {
        println!("SKIP: fio has no engine nbd");
        return;
    }
    let place = Place::new();
    let _server = place.nbdkit("s", &["memory", "16M"]);
    let mut command = swapped(&place, "fio");
    command.args([
        "--name=verify",
        "--ioengine=nbd",
        "--rw=randwrite",
        "--bs=4k",
    ]);
    command.args([
        "--size=16M",
        "--iodepth=32",
        "--verify=crc32c",
        "--do_verify=1",
    ]);
    command.args(["--verify_fatal=1", "--verify_state_save=0"]);
    let said = stdout_of(command.arg(format!("--uri={}", uri(&place, "s"))));
    assert!(said.contains("err= 0"), "{said}");
    assert_ours(&place);
}

#[test]
fn nbdkits_plugin() {
    if !have(&["nbdkit", "nbdcopy"]) {
        return;
    }
    let place = Place::new();
    let bytes = noise(&place.path("in"), 3 << 20);
    let _server = place.nbdkit("s", &["memory", "3M"]);
    // The copier has its own library; the server between has ours.
    let mut command = swapped(&place, "nbdkit");
    command.args(["-U", "-", "nbd"]);
    command.arg(format!("socket={}", place.path("s").display()));
    let job = "env -u LD_LIBRARY_PATH -u LD_DEBUG nbdcopy in \"$uri\" && \
               env -u LD_LIBRARY_PATH -u LD_DEBUG nbdcopy \"$uri\" out";
    let ran = output(command.args(["--run", job]));
    let why = String::from_utf8_lossy(&ran.stderr).into_owned();
    if why.contains("plugin") && why.contains("cannot open") {
        println!("SKIP: nbdkit has no plugin nbd");
        return;
    }
    assert!(ran.status.success(), "{why}");
    assert_eq!(fs::read(place.path("out")).expect("reads"), bytes);
    assert_ours(&place);
}

#[test]
fn nbdinfo() {
    if !have(&["nbdkit", "nbdinfo"]) {
        return;
    }
    let place = Place::new();
    let _server = place.nbdkit("s", &["memory", "10M"]);
    for words in [
        &["--json"][..],
        &[],
        &["--size"],
        &["--map"],
        &["--list", "--json"],
        &["--can", "write"],
    ] {
        let uri = uri(&place, "s");
        let theirs = stdout_of(place.command("nbdinfo").args(words).arg(&uri));
        let mine = stdout_of(swapped(&place, "nbdinfo").args(words).arg(&uri));
        assert_eq!(mine, theirs, "{words:?}");
    }
    assert_ours(&place);
}

#[test]
fn nbdcopy() {
    if !have(&["nbdkit", "nbdcopy", "qemu-nbd", "qemu-img"]) {
        return;
    }
    let place = Place::new();
    let bytes = noise(&place.path("in"), 5 << 20);
    let _server = place.nbdkit("s", &["memory", "5M"]);
    let uri = uri(&place, "s");
    stdout_of(swapped(&place, "nbdcopy").args(["in", &uri]));
    stdout_of(swapped(&place, "nbdcopy").args([&uri, "out"]));
    assert_eq!(fs::read(place.path("out")).expect("reads"), bytes);
    // A server of its own, by socket activation.
    stdout_of(
        place
            .command("qemu-img")
            .args(["convert", "-O", "qcow2", "in", "q.qcow2"]),
    );
    let mut command = swapped(&place, "nbdcopy");
    command.args([
        "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "q.qcow2", "]", "again",
    ]);
    stdout_of(&mut command);
    assert_eq!(fs::read(place.path("again")).expect("reads"), bytes);
    assert_ours(&place);
}

#[test]
fn nbdfuse() {
    if !have(&["nbdkit", "nbdfuse", "fusermount3"]) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let place = Place::new();
    let _server = place.nbdkit("s", &["memory", "1M"]);
    let folder = place.path("mounted");
    fs::create_dir(&folder).expect("creates");
    let mut command = swapped(&place, "nbdfuse");
    let mut mounted = command
        .args(["mounted/disk", &uri(&place, "s")])
        .spawn()
        .expect("starts");
    let disk = folder.join("disk");
    let began = Instant::now();
    while !disk.exists() {
        if mounted.try_wait().expect("looks").is_some() || began.elapsed() > PATIENCE {
            println!("SKIP: nbdfuse cannot mount here");
            let _ = mounted.kill();
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let size = fs::metadata(&disk).expect("a file").len();
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&disk)
        .and_then(|file| {
            use std::os::unix::fs::FileExt;
            file.write_all_at(b"through the file system", 4096)?;
            file.sync_all()
        });
    let read = fs::read(&disk);
    stdout_of(place.command("fusermount3").args(["-u", "-z", "mounted"]));
    assert!(mounted.wait().expect("ends").success());
    assert_eq!(size, 1 << 20);
    written.expect("writes");
    assert_eq!(
        &read.expect("reads")[4096..4119],
        b"through the file system"
    );
    assert_ours(&place);
}
