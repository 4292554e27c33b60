//! What cannot be done is told, and does no harm.

use blkit::{AsyncDisk, Disk, ErrorKind, Flags};

fn fails(open: blkit::Builder) -> blkit::Error {
    open.open().expect_err("it cannot be opened")
}

#[test]
fn what_cannot_be_opened_says_why() {
    let error = fails(Disk::builder("memroy").arg("1M"));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "unknown source 'memroy'");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("did you mean 'memory'?"))
    );
    let error = fails(Disk::builder("memory").param("size", "1M").filter("nosuch"));
    assert!(
        error.to_string().contains("unknown filter 'nosuch'"),
        "{error}"
    );
    let error = fails(Disk::builder("memory").param("siez", "1M"));
    assert!(error.to_string().contains("memory: "), "{error}");
    let error = Disk::open("./no/such/file").expect_err("there is none");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::NotFound, 2));
    let error = Disk::open_path("/dev/null").expect_err("no disk");
    assert!(error.to_string().starts_with("file: "), "{error}");
    let error = smol::block_on(AsyncDisk::open("nbd+unix:///?socket=/no/such"));
    assert_eq!(
        error.expect_err("nobody listens").kind(),
        ErrorKind::NotFound
    );
    let error = Disk::open("nbd://[").expect_err("no URI");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn what_a_disk_cannot_do_is_refused() {
    let disk = Disk::builder("memory").arg("1M").open().expect("opens");
    let mut bytes = [0; 512];
    for (at, len) in [
        (1 << 20, 1),
        ((1 << 20) - 511, 512),
        (u64::MAX, 512),
        (u64::MAX - 10, 3),
    ] {
        let bytes = &mut bytes[..len];
        let error = disk.read_at(bytes, at).expect_err("outside");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        disk.write_at(bytes, at).expect_err("outside");
        disk.write_zeroes(at, len as u64, Flags::NONE)
            .expect_err("outside");
        disk.discard(at, u64::MAX).expect_err("outside");
        disk.extents(at, len as u64).expect_err("outside");
    }
    assert!(
        disk.read_at(&mut vec![0; 5 << 20], 0).is_err(),
        "longer than the disk"
    );
    let error = disk
        .read_at(&mut [0], 1 << 20)
        .expect_err("outside")
        .to_string();
    assert_eq!(
        error,
        "read: 1048576+1 is outside the disk of 1048576 bytes"
    );

    let disk = Disk::builder("memory")
        .arg("1M")
        .read_only(true)
        .open()
        .expect("opens");
    assert!(disk.limits().read_only);
    let error = disk.write_at(&bytes, 0).expect_err("read-only");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Permission, 30));
    disk.read_at(&mut bytes, 0).expect("reads");
}

#[test]
fn errors_of_the_disk_come_through() {
    let disk = Disk::builder("memory").arg("1M").filter("error");
    let disk = disk
        .param("error", "ENOSPC")
        .param("error-pwrite-rate", "100%");
    let disk = disk.open().expect("opens");
    let error = disk.write_at(&[1; 512], 4096).expect_err("no space");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Exhausted, 28));
    assert!(
        error.to_string().starts_with("write at 4096+512 failed: "),
        "{error}"
    );
    let error = disk.write_at(&vec![1; 1 << 20], 0).expect_err("no space");
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    disk.read_at(&mut [0; 512], 4096).expect("reads");
    disk.close().expect("closes");
}
