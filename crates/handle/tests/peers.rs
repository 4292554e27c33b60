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
    handle
        .block_status_64(1 << 20, 0, Box::new(extent), 0)
        .unwrap();
    assert_eq!(*whole.lock().unwrap(), 1 << 20);
    let one = |_: &str, _, pairs: &mut [u32], _: &mut i32| {
        assert_eq!(pairs.len(), 2);
        0
    };
    handle
        .block_status(4096, 16384, Box::new(one), CMD_FLAG_REQ_ONE)
        .unwrap();
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
    assert!(
        handle
            .get_uri()
            .unwrap()
            .starts_with("nbd+unix:///?socket=/tmp/libnbd")
    );
    drop(handle);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// nbdkit with these words, listening on a Unix socket in a directory of its own.
struct Server {
    process: std::process::Child,
    directory: tempfile::TempDir,
}

impl Server {
    fn start(words: &[&str]) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let process = Command::new("nbdkit")
            .args(["-f", "--exit-with-parent", "-U"])
            .arg(&socket)
            .args(words)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !testkit::listens(&socket) {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Server { process, directory }
    }

    fn socket(&self) -> std::path::PathBuf {
        self.directory.path().join("s")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn tls_with_a_shared_key() {
    if !has("nbdkit") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "alice:0123456789abcdef0123456789abcdef\n").unwrap();
    let keys = keys.to_str().unwrap();
    let psk = format!("--tls-psk={keys}");
    let server = Server::start(&["--tls=require", &psk, "memory", "1M"]);
    let uri = format!(
        "nbds+unix://alice@/?socket={}&tls-psk-file={keys}",
        server.socket().display()
    );
    let handle = Handle::new().unwrap();
    if !handle.supports_tls() {
        eprintln!("SKIP: built without TLS");
        return;
    }
    handle.set_uri_allow_local_file(true).unwrap();
    handle.add_meta_context("base:allocation").unwrap();
    handle.connect_uri(&uri).unwrap();
    assert!(handle.get_tls_negotiated().unwrap());
    exercise(&handle);
    // More than a record, a buffer and a socket hold.
    let data: Vec<u8> = (0..900_000u32).map(|n| (n >> 3) as u8).collect();
    handle.pwrite(data.clone(), 0, 0).unwrap();
    assert!(handle.pread(vec![0; data.len()], 0, 0).unwrap() == data);
    handle.shutdown(0).unwrap();
    // A stranger is not let in.
    let handle = Handle::new().unwrap();
    handle.set_uri_allow_local_file(true).unwrap();
    let stranger = uri.replace("alice", "mallory");
    assert!(handle.connect_uri(&stranger).is_err());
    assert!(handle.aio_is_dead());
    // Without TLS neither; with it on demand, yes.
    let handle = Handle::new().unwrap();
    let error = handle.connect_unix(&server.socket()).unwrap_err();
    assert!(
        error.to_string().contains("requires TLS encryption first"),
        "{error}"
    );
    let handle = Handle::new().unwrap();
    handle.set_tls_psk_file(keys.as_ref()).unwrap();
    handle.set_tls_username("alice").unwrap();
    handle.set_opt_mode(true).unwrap();
    handle.set_request_structured_replies(false).unwrap();
    handle.connect_unix(&server.socket()).unwrap();
    assert!(!handle.get_tls_negotiated().unwrap());
    assert_eq!(handle.opt_starttls(), Ok(true));
    assert!(handle.get_tls_negotiated().unwrap());
    assert_eq!(handle.opt_structured_reply(), Ok(true));
    handle.opt_go().unwrap();
    assert_eq!(handle.pread(vec![1; 16], 0, 0).unwrap(), data[..16]);
}

#[test]
fn every_address_of_a_host_is_tried() {
    // Only one of the addresses of localhost has a listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serving = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"NBDMAGIC").unwrap();
    });
    let handle = Handle::new().unwrap();
    let error = handle.connect_tcp("localhost", &port).unwrap_err();
    serving.join().unwrap();
    assert!(
        error
            .to_string()
            .contains("server disconnected unexpectedly"),
        "{error}"
    );
    assert!(handle.aio_is_dead());
    // Nobody there: the handle can be used again.
    let handle = Handle::new().unwrap();
    let error = handle.connect_tcp("127.0.0.1", "1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "nbd_connect_tcp: connect: 127.0.0.1:1: could not connect to remote host: Connection \
         refused"
    );
    assert!(handle.aio_is_created());
    let error = handle
        .connect_tcp("nosuch.invalid", "1")
        .unwrap_err()
        .to_string();
    let start = "nbd_connect_tcp: getaddrinfo: hostname \"nosuch.invalid\" port \"1\": ";
    assert!(error.starts_with(start), "{error}");
    assert!(!error[start.len()..].contains("lookup"), "{error}");
}

#[test]
fn no_socket_and_no_server() {
    let handle = Handle::new().unwrap();
    let error = handle
        .connect_unix("/nonexistent/socket".as_ref())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "nbd_connect_unix: connect: No such file or directory"
    );
    assert!(handle.aio_is_dead());
    assert_eq!(
        handle.get_uri().unwrap(),
        "nbd+unix:///?socket=/nonexistent/socket"
    );
    let handle = Handle::new().unwrap();
    let long = "/".to_owned() + &"n".repeat(200);
    let error = handle.connect_unix(long.as_ref()).unwrap_err();
    assert_eq!(error.errno(), 36);
    assert!(handle.aio_is_created());
    let handle = Handle::new().unwrap();
    let error = handle
        .connect_command(&words(&["/nonexistent/server"]))
        .unwrap_err();
    assert_eq!(error.errno(), 2, "{error}");
    assert!(handle.aio_is_dead());
    for way in [
        Handle::connect_command,
        Handle::connect_systemd_socket_activation,
    ] {
        let handle = Handle::new().unwrap();
        let error = way(&handle, &words(&["false"])).unwrap_err();
        assert!(handle.aio_is_dead(), "{error}");
    }
}

#[test]
fn a_server_is_ended_with_its_handle() {
    // It does not look at its input, so closing that does not end it.
    let handle = Handle::new().unwrap();
    handle
        .aio_connect_command(&words(&["sleep", "1000"]))
        .unwrap();
    let pid = handle.get_subprocess_pid().unwrap();
    handle.kill_subprocess(0).unwrap();
    drop(handle);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    let handle = Handle::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let script = format!(
        "echo $LISTEN_FDNAMES $LISTEN_FDS $((LISTEN_PID == $$)) >{0}.new; mv {0}.new {0}; exec sleep 1000",
        told.display()
    );
    let argv = words(&["sh", "-c", &script]);
    handle.set_socket_activation_name("name").unwrap();
    handle.aio_connect_systemd_socket_activation(&argv).unwrap();
    assert!(handle.aio_is_connecting());
    while !told.exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(std::fs::read_to_string(&told).unwrap(), "name 1 1\n");
    let pid = handle.get_subprocess_pid().unwrap();
    drop(handle);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
