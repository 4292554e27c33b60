use super::*;
use crate::testing::{Bench, ProgramHost, conform, context, open_alone, start};
use block::{Flags, Op};
use reactor::DriverKind;

fn source(dir: &Path, words: &[&str]) -> Arc<dyn Source> {
    let dir = format!("dir={}", dir.display());
    let words = [&[dir.as_str()], words].concat();
    make(
        &words
            .iter()
            .map(|word| Arg::parse(word))
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

fn open(source: &dyn Source, export: &str, access: Access) -> Result<Bench> {
    let run = start(DriverKind::Auto).unwrap();
    Bench::with_host(run, source, export, access, Arc::new(ProgramHost))
}

/// Makes a disk of zeroes without mkfs.
const TRUNCATE: &str = r#"command=truncate -s $size "$disk""#;

#[test]
fn disks_are_made_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), &["16M", "label=KEPT"]);
    source.ready().unwrap();
    let bench = open(&*source, "a:b", Access::ReadWrite).unwrap();
    assert_eq!(bench.limits().size, 16 << 20);
    assert!(!bench.limits().multi_conn);
    assert_eq!(bench.read(1024 + 120, 5).unwrap(), *b"KEPT\0");
    bench.write_flagged(5 << 20, b"hello", Flags::FUA).unwrap();
    bench.plain(Op::Flush, 0, 0).unwrap();
    drop(bench);
    let bench = open(&*source, "a:b", Access::ReadOnly).unwrap();
    assert!(bench.limits().read_only());
    assert_eq!(bench.read(5 << 20, 5).unwrap(), *b"hello");
    drop(bench);
    drop(open(&*source, "", Access::ReadWrite).unwrap());
    fs::write(dir.path().join(".hidden"), []).unwrap();
    assert_eq!(list(dir.path()).unwrap(), ["a:b", "default"]);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "no temporary directory is left: {left:?}");
    let mut run = start(DriverKind::Auto).unwrap();
    let cx = context(&run, "", Access::ReadWrite);
    let exports = run.block_on(source.exports(&cx)).unwrap();
    assert_eq!(exports.default.as_deref(), Some("default"));
    assert_eq!(exports.list.len(), 2);
    drop(cx);
    run.close(Duration::from_secs(5));
}

#[test]
fn a_disk_has_one_client_unless_it_is_shared() {
    let dir = tempfile::tempdir().unwrap();
    let alone = source(dir.path(), &["1M", TRUNCATE]);
    let first = open(&*alone, "x", Access::ReadWrite).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let error = open(&*alone, "x", access).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert_eq!(
            error.chain(),
            "ondemand: filesystem is locked by another client"
        );
    }
    let shared = source(dir.path(), &["1M", TRUNCATE, "share=true"]);
    assert!(
        open(&*shared, "x", Access::ReadWrite).is_err(),
        "the other does not share"
    );
    drop(open(&*alone, "y", Access::ReadWrite).unwrap());
    drop(first);
    let clients = [0, 1].map(|_| open(&*shared, "x", Access::ReadWrite).unwrap());
    clients[0].write(100, b"seen").unwrap();
    assert_eq!(clients[1].read(100, 4).unwrap(), *b"seen");
    assert!(clients[0].limits().multi_conn);
    assert!(open(&*alone, "x", Access::ReadWrite).is_err());
}

#[test]
fn it_is_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), &["8388609", TRUNCATE]);
    let next = std::sync::atomic::AtomicU64::new(0);
    conform(|| {
        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        open_alone(&*source, &format!("disk{number}")).unwrap()
    });
}

#[test]
fn a_client_can_wait() {
    let dir = tempfile::tempdir().unwrap();
    let patient = source(dir.path(), &["1M", TRUNCATE, "wait=true"]);
    let first = open(&*patient, "x", Access::ReadWrite).unwrap();
    let second = std::thread::spawn({
        let patient = patient.clone();
        move || drop(open(&*patient, "x", Access::ReadWrite).unwrap())
    });
    std::thread::sleep(3 * LOOK_AGAIN);
    assert!(!second.is_finished());
    drop(first);
    second.join().unwrap();
}

#[test]
fn names_that_are_no_files_in_the_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(dir.path(), &["1M", TRUNCATE]);
    let long = "x".repeat(256);
    for name in [".", "..", ".hidden", "a/b", "/etc/passwd", "a\0b", &long] {
        let error = open(&*source, name, Access::ReadWrite).err().expect(name);
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
    }
    drop(open(&*source, &long[..200], Access::ReadWrite).unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_command_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source_ = source(
        dir.path(),
        &["1M", r#"command=echo > "$disk"; echo no >&2; exit 1"#],
    );
    for _ in 0..2 {
        let error = open(&*source_, "x", Access::ReadWrite).err().unwrap();
        let wanted = "ondemand: the command that makes a disk failed (exit code 1): no";
        assert_eq!(error.chain(), wanted);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let gone = source(&dir.path().join("none"), &["1M"]);
    assert_eq!(gone.ready().unwrap_err().kind(), ErrorKind::NotFound);
    let args = [Arg::parse("size=1M")];
    let error = make(&args).err().unwrap();
    assert!(
        error.chain().starts_with("ondemand: dir=<DIR> is required"),
        "{}",
        error.chain()
    );
}
