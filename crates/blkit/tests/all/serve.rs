//! Disks that are served to others by vhost-user-blk.

use std::{
    io,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use blkit::{
    Disk, Flags,
    serve::{self, Abilities, Device},
};

const SIZE: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Memory that counts flushes, and cannot read its last block.
struct Ram {
    bytes: Mutex<Vec<u8>>,
    flushes: &'static AtomicUsize,
}

impl Device for Ram {
    fn size(&self) -> u64 {
        SIZE as u64
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        if at + bytes.len() > SIZE - 512 {
            return Err(io::Error::from_raw_os_error(61));
        }
        bytes.copy_from_slice(&self.bytes.lock().unwrap()[at..at + bytes.len()]);
        Ok(())
    }

    fn abilities(&self) -> Abilities {
        Abilities::writable()
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let at = offset as usize;
        self.bytes.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn ram(flushes: &'static AtomicUsize) -> Ram {
    Ram {
        bytes: Mutex::new(vec![0; SIZE]),
        flushes,
    }
}

/// The disk behind a socket, by our own driver.
fn attach(socket: &Path) -> Option<Disk> {
    if !blkit::blkio::DRIVERS.contains(&"virtio-blk-vhost-user") {
        println!("SKIP: there is no such driver yet");
        return None;
    }
    let disk = Disk::builder("blkio")
        .arg("virtio-blk-vhost-user")
        .param("path", socket.display());
    Some(disk.open().expect("it opens"))
}

#[test]
fn a_device_of_the_programs_own() {
    static FLUSHES: AtomicUsize = AtomicUsize::new(0);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let server = serve::vhost_user(&socket)
        .queues(2)
        .threads(2)
        .device(ram(&FLUSHES))
        .unwrap();
    assert_eq!(server.connections(), 0);
    if let Some(disk) = attach(&socket) {
        assert_eq!(disk.size(), SIZE as u64);
        let pattern: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        disk.write_at(&pattern, 4096 + 100).unwrap();
        let mut bytes = vec![0; pattern.len()];
        disk.read_at(&mut bytes, 4096 + 100).unwrap();
        assert!(bytes == pattern);
        disk.write_zeroes(8192, 4096, Flags::NONE).unwrap();
        disk.read_at(&mut bytes[..4096], 8192).unwrap();
        assert_eq!(bytes[..4096], [0; 4096]);
        let before = FLUSHES.load(Ordering::SeqCst);
        disk.flush().unwrap();
        assert!(FLUSHES.load(Ordering::SeqCst) > before);
        // An error is the request's, and no more.
        disk.read_at(&mut bytes[..512], SIZE as u64 - 512)
            .expect_err("it cannot be read");
        disk.read_at(&mut bytes[..512], 0).unwrap();
        disk.close().unwrap();
    }
    server.close(PATIENCE).unwrap();
    assert!(!socket.exists());
}

#[test]
fn any_source_and_filter() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let disk = Disk::builder("pattern").arg("2M").filter("offset");
    let disk = disk.param("offset", "1M");
    let server = serve::vhost_user(&socket).disk(disk).unwrap();
    if let Some(disk) = attach(&socket) {
        let mut bytes = [0; 8];
        disk.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, (1u64 << 20).to_be_bytes());
        assert_eq!(disk.size(), 1 << 20);
        drop(disk);
    }
    server.close(PATIENCE).unwrap();
}

#[test]
fn what_cannot_be_served_is_told() {
    static FLUSHES: AtomicUsize = AtomicUsize::new(0);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sock");
    let vhost_user = || serve::vhost_user(&socket);
    for wrong in [
        vhost_user().queues(0),
        vhost_user().queues(257),
        vhost_user().block_size(700),
    ] {
        let error = wrong.device(ram(&FLUSHES)).err().expect("impossible");
        assert_eq!(error.errno(), 22);
    }
    let nothing = Disk::builder("file").arg("/nonexistent");
    assert!(vhost_user().disk(nothing).is_err());
    // And nothing of it is left: the socket is free.
    let server = vhost_user().device(ram(&FLUSHES)).unwrap();
    let second = vhost_user().device(ram(&FLUSHES)).err();
    assert!(second.expect("in use").to_string().contains("listen"));
    drop(server);
    vhost_user().device(ram(&FLUSHES)).unwrap();
}
