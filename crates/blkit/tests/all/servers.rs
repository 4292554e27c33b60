//! Servers that are there, that go, and that others wrote.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use blkit::{Context, Disk, ErrorKind, Flags};

use crate::common::{SIZE, Served, eventually};

#[test]
fn what_is_written_is_on_the_server() {
    let served = Served::new();
    let disk = Disk::open(&served.uri()).expect("opens");
    disk.write_at(b"hello", 1000).expect("writes");
    disk.close().expect("closes");
    assert_eq!(&served.disk.to_vec()[1000..1005], b"hello");
    eventually("the server sees it go", || served.server.connections() == 0);
}

#[test]
fn dropping_a_disk_leaves_the_server() {
    let served = Served::new();
    let disk = Disk::open(&served.uri()).expect("opens");
    let other = disk.clone();
    drop(disk);
    let mut bytes = [1; 10];
    other.read_at(&mut bytes, 0).expect("a clone keeps it open");
    drop(other);
    eventually("the server sees it go", || served.server.connections() == 0);
}

#[test]
fn a_server_that_goes_fails_requests() {
    let served = Served::new();
    let disk = Disk::open(&served.uri()).expect("opens");
    disk.write_at(&[1; 4096], 0).expect("writes");
    served.server.abort();
    eventually("requests fail", || disk.read_at(&mut [0; 4096], 0).is_err());
    disk.flush().expect_err("what was written may be lost");
    disk.write_zeroes(0, 4096, Flags::NONE)
        .expect_err("nobody is there");
    disk.close().expect_err("the flush has failed");
}

#[test]
fn a_context_closes_all_that_is_open_in_it() {
    let served = Served::new();
    let context = Context::builder().threads(2).build().expect("a context");
    let open = || {
        Disk::builder(served.uri())
            .context(&context)
            .open()
            .expect("opens")
    };
    let disks: Vec<_> = (0..3).map(|_| open()).collect();
    for (i, disk) in disks.iter().enumerate() {
        disk.write_at(&[i as u8 + 1; 512], i as u64 * 512)
            .expect("writes");
    }
    context.close(Duration::from_secs(60)).expect("closes");
    eventually("the server sees them go", || {
        served.server.connections() == 0
    });
    let bytes = served.disk.to_vec();
    assert_eq!((bytes[0], bytes[512], bytes[1024]), (1, 2, 3));
    for disk in disks {
        let error = disk.read_at(&mut [0], 0).expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::Gone);
        assert_eq!(disk.size(), SIZE, "what is known stays known");
    }
}

#[test]
fn threads_that_end_leave_nothing_behind() {
    let served = Served::new();
    for _ in 0..20 {
        let uri = served.uri();
        let thread = thread::spawn(move || {
            let disk = Disk::open(&uri).expect("opens");
            disk.read_at(&mut [0; 512], 0).expect("reads");
        });
        thread.join().expect("no panic");
    }
    eventually("the server sees them go", || {
        served.server.connections() == 0
    });
}

#[cfg(feature = "tls")]
#[test]
fn connections_may_be_encrypted() {
    let place = tempfile::tempdir().expect("a directory");
    let keys = place.path().join("keys.psk");
    std::fs::write(&keys, "alice:00112233445566778899aabbccddeeff\n").expect("writes");
    let config = tls::Config {
        psk: Some(keys.clone()),
        ..tls::Config::default()
    };
    let acceptor = tls::Acceptor::new(config).expect("a key");
    let served = Served::with(exports::nbd::Options {
        tls: exports::nbd::Tls::Require(std::sync::Arc::new(acceptor)),
        ..Default::default()
    });
    Disk::open(&served.uri()).expect_err("in the clear");
    let (socket, keys) = (served.socket(), keys.display());
    let uri = format!(
        "nbds+unix://alice@/?socket={}&tls-psk-file={keys}",
        socket.display()
    );
    let disk = Disk::open(&uri).expect("opens");
    disk.write_at(b"secret", 0).expect("writes");
    disk.close().expect("closes");
    assert_eq!(&served.disk.to_vec()[..6], b"secret");
}

#[test]
fn nbdkit_is_a_server_too() {
    let place = tempfile::tempdir().expect("a directory");
    let socket = place.path().join("s");
    let mut command = Command::new("nbdkit");
    command
        .args(["-f", "-U"])
        .arg(&socket)
        .args(["memory", "8M"]);
    let mut server = match command.stderr(Stdio::null()).spawn() {
        Ok(server) => server,
        Err(error) => return println!("SKIP: nbdkit: {error}"),
    };
    eventually("nbdkit listens", || testkit::listens(&socket));
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let disk = Disk::builder(uri)
        .param("connections", 4)
        .open()
        .expect("opens");
    assert_eq!(disk.size(), 8 << 20);
    let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
    disk.write_at(&bytes, 12345).expect("writes");
    disk.flush().expect("flushes");
    let mut found = vec![0; bytes.len()];
    disk.read_at(&mut found, 12345).expect("reads");
    assert!(found == bytes);
    assert!(
        disk.extents(6 << 20, 2 << 20)
            .expect("knows")
            .iter()
            .all(|e| e.zero)
    );
    server.kill().expect("kills");
    server.wait().expect("ends");
    eventually("requests fail", || disk.read_at(&mut [0; 512], 0).is_err());
    let _ = disk.close();
}
