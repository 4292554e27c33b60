//! Opening, names, locks, and what a user reads when it fails.

use std::os::unix::{fs::symlink, net::UnixListener};

use super::*;

fn error_of(source: &dyn Source, export: &str, access: Access) -> Error {
    match Bench::try_open(source, export, access) {
        Ok(_) => panic!("'{export}' must be refused"),
        Err(error) => error,
    }
}

#[track_caller]
fn refused(path: &Path, kind: ErrorKind, text: &str) -> Error {
    let source = source(path, &[]);
    let early = source.ready().expect_err("found early");
    assert_eq!(early.kind(), kind, "{}", early.chain());
    let error = error_of(&*source, "", Access::ReadWrite);
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().starts_with("file: "), "{}", error.chain());
    assert!(error.chain().contains(text), "{}", error.chain());
    assert!(
        error.chain().contains(&*path.to_string_lossy()),
        "{}",
        error.chain()
    );
    error
}

#[test]
fn what_cannot_be_served_is_named() {
    let (dir, file) = file_of(b"x");
    let at = |name: &str| dir.path().join(name);
    let hint = refused(&at("missing"), ErrorKind::NotFound, "No such file");
    assert!(hint.hint_text().unwrap().contains("truncate -s SIZE"));
    let hint = refused(dir.path(), ErrorKind::Config, "is a directory");
    assert_eq!(hint.hint_text(), Some("serve the files in it with dir="));
    let _socket = UnixListener::bind(at("socket")).unwrap();
    refused(&at("socket"), ErrorKind::Config, "is a socket");
    let fifo = at("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    refused(&fifo, ErrorKind::Config, "is a FIFO");
    refused(
        Path::new("/dev/null"),
        ErrorKind::Config,
        "is a character device",
    );
    refused(&file.join("below"), ErrorKind::NotFound, "Not a directory");
    let words = ["file=a", "dir=b"].map(Arg::parse);
    let error = make(&words).err().expect("one of the two");
    assert_eq!(error.chain(), "file: file and dir cannot both be given");
    let error = make(&[]).err().expect("one of the two");
    let wanted = "file: file=<FILE>, dir=<DIR>, fd=<N> or dirfd=<N> is required";
    assert_eq!(error.chain(), wanted);
}

#[test]
fn a_file_that_is_not_writable_is_served_read_only() {
    // Even root may not write to a program that runs, or to a file system that is read-only.
    let bench = Bench::open(source(&std::env::current_exe().unwrap(), &[]));
    assert!(bench.limits().read_only());
    assert_eq!(bench.read(0, 4).unwrap(), b"\x7fELF");
}

#[test]
fn two_writers_are_refused() {
    let (_dir, path) = file_of(&[0; 4096]);
    let (one, two) = (source(&path, &[]), source(&path, &[]));
    let writer = Bench::open(one.clone());
    let also = Bench::open(one.clone());
    also.write(0, b"clients of one source share").unwrap();
    let error = error_of(&*two, "", Access::ReadWrite);
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = format!(
        "cannot write to '{}': another program has it open",
        path.display()
    );
    assert!(error.chain().ends_with(&text), "{}", error.chain());
    assert!(error.hint_text().is_some());
    let error = error_of(&*two, "", Access::ReadOnly);
    assert!(
        error.chain().contains("open for writing"),
        "{}",
        error.chain()
    );
    let error = two.ready().expect_err("no client could open it");
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", error.chain());
    let forced = source(&path, &["lock=none"]);
    forced.ready().unwrap();
    Bench::open(forced).write(0, b"forced").unwrap();
    drop(writer);
    assert_eq!(
        error_of(&*two, "", Access::ReadWrite).kind(),
        ErrorKind::Busy
    );
    drop(also);
    two.ready().expect("nobody has it open");
    Bench::open(two).write(0, b"free again").unwrap();
}

#[test]
fn readers_share() {
    let (_dir, path) = file_of(&[0; 4096]);
    let _one = Bench::open_as(source(&path, &[]), Access::ReadOnly);
    let _two = Bench::open_as(source(&path, &[]), Access::ReadOnly);
    let error = error_of(&*source(&path, &[]), "", Access::ReadWrite);
    assert_eq!(error.kind(), ErrorKind::Busy);
    let _shared = Bench::open(source(&path, &["lock=shared"]));
    let error = error_of(&*source(&path, &["lock=exclusive"]), "", Access::ReadOnly);
    assert_eq!(error.kind(), ErrorKind::Permission);
}

#[test]
fn a_directory_serves_what_is_in_it_and_nothing_else() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), b"secret").unwrap();
    let (dir, _) = file_of(b"one");
    let at = |name: &str| dir.path().join(name);
    fs::write(at("b \u{e4}"), b"two").unwrap();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/deep"), b"deep").unwrap();
    symlink("disk.img", at("a-link")).unwrap();
    symlink("sub/deep", at("deep-link")).unwrap();
    symlink(outside.path().join("secret"), at("out")).unwrap();
    symlink("/proc/self/exe", at("magic")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let source = new(config(&[&format!("dir={}", dir.path().display())])).unwrap();
    source.ready().unwrap();

    let mut run = start(DriverKind::Auto).unwrap();
    let cx = crate::testing::context(&run, "", Access::ReadWrite);
    let exports = run.block_on(source.exports(&cx)).unwrap();
    let names: Vec<_> = exports.list.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a-link", "b \u{e4}", "deep-link", "disk.img"]);
    assert_eq!(exports.default, None);

    for (name, bytes) in [
        ("disk.img", "one"),
        ("a-link", "one"),
        ("deep-link", "deep"),
    ] {
        let bench = Bench::try_open(&*source, name, Access::ReadWrite).unwrap();
        assert_eq!(bench.read(0, bytes.len()).unwrap(), bytes.as_bytes());
    }
    for name in [
        "",
        ".",
        "..",
        "sub/deep",
        "../secret",
        "/etc/passwd",
        "a\0b",
        "absent",
    ] {
        let error = error_of(&*source, name, Access::ReadWrite);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.chain());
    }
    for name in ["out", "magic"] {
        let error = error_of(&*source, name, Access::ReadOnly);
        assert_eq!(error.kind(), ErrorKind::Permission, "{}", error.chain());
        assert!(
            error.chain().contains("out of the directory"),
            "{}",
            error.chain()
        );
    }
    let error = error_of(&*source, "sub", Access::ReadOnly);
    assert_eq!(error.kind(), ErrorKind::Config);

    // What the directory is called later does not matter; what is in it does.
    let moved = outside.path().join("moved");
    fs::rename(dir.path(), &moved).unwrap();
    fs::write(moved.join("new"), b"new").unwrap();
    let bench = Bench::try_open(&*source, "new", Access::ReadWrite).unwrap();
    assert_eq!(bench.read(0, 3).unwrap(), b"new");
}

#[test]
fn a_missing_directory_is_found_early() {
    let (dir, file) = file_of(b"x");
    for (path, kind) in [
        (dir.path().join("no"), ErrorKind::NotFound),
        (file, ErrorKind::NotFound),
    ] {
        let source = new(config(&[&format!("dir={}", path.display())])).unwrap();
        let error = source.ready().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(
            error.chain().contains("as a directory"),
            "{}",
            error.chain()
        );
    }
}

#[test]
fn relative_paths_are_taken_from_where_the_source_was_made() {
    let source = new(config(&["Cargo.toml"])).unwrap();
    source.ready().unwrap();
    let bench = Bench::open_as(source, Access::ReadOnly);
    assert_eq!(bench.read(0, 9).unwrap(), b"[package]");
}
