//! Handles against servers of others.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use handle::{CMD_FLAG_FUA, CMD_FLAG_REQ_ONE, Handle};

/// The words of a command.
fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Says why a test is left out if a program is missing.
fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIP: there is no {program}");
    }
    found
}

/// Reads, writes, and asks: what every server has to answer alike.
fn exercise(handle: &Handle) {
    let size = handle.get_size().unwrap();
    assert_eq!(size, 1 << 20);
    let data: Vec<u8> = (0..100_000u32).map(|n| (n * 7) as u8).collect();
    handle.pwrite(data.clone(), 12345, CMD_FLAG_FUA).unwrap();
    let read = handle.pread(vec![0; 100_000], 12345, 0).unwrap();
    assert_eq!(read, data);
    handle.zero(4096, 16384, 0).unwrap();
    handle.flush(0).unwrap();
    let read = handle.pread(vec![1; 4096], 16384, 0).unwrap();
    assert_eq!(read, vec![0; 4096]);
    handle.trim(4096, 8192, 0).unwrap();
    let whole = Arc::new(Mutex::new(0));
    let sum = whole.clone();
    let extent = move |name: &str, offset, extents: &mut [handle::Extent], _: &mut i32| {
        assert_eq!((name, offset), ("base:allocation", 0));
        *sum.lock().unwrap() += extents.iter().map(|extent| extent.length).sum::<u64>();
        0
    };
    handle.block_status_64(1 << 20, 0, Box::new(extent), 0).unwrap();
    assert_eq!(*whole.lock().unwrap(), 1 << 20);
    let one = |_: &str, _, pairs: &mut [u32], _: &mut i32| {
        assert_eq!(pairs.len(), 2);
        0
    };
    handle.block_status(4096, 16384, Box::new(one), CMD_FLAG_REQ_ONE).unwrap();
}

#[test]
fn nbdkit_on_its_standard_streams() {
    if !has("nbdkit") {
        return;
    }
    let handle = Handle::new().unwrap();
    handle.add_meta_context("base:allocation").unwrap();
    let argv = words(&["nbdkit", "-s", "--exit-with-parent", "memory", "1M"]);
    handle.connect_command(&argv).unwrap();
    exercise(&handle);
    handle.shutdown(0).unwrap();
    assert!(handle.aio_is_closed());
}

#[test]
fn qemu_nbd_by_socket_activation() {
    if !has("qemu-nbd") {
        return;
    }
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let handle = Handle::new().unwrap();
    handle.add_meta_context("base:allocation").unwrap();
    let path = disk.path().to_str().unwrap();
    let argv = words(&["qemu-nbd", "-f", "raw", path]);
    handle.connect_systemd_socket_activation(&argv).unwrap();
    let pid = handle.get_subprocess_pid().unwrap();
    exercise(&handle);
    assert!(handle.get_uri().unwrap().starts_with("nbd+unix:///?socket=/tmp/libnbd"));
    drop(handle);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
