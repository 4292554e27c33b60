//! Start, signals, drain, end.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    bench::{Place, Server, eventually},
    raw::Raw,
};

/// SIGHUP, SIGINT, SIGQUIT, SIGTERM.
const TERMINATION: [i32; 4] = [1, 2, 3, 15];

#[test]
fn every_termination_signal_is_a_clean_stop() {
    for signal in TERMINATION {
        let place = Place::new();
        let server = place.serve_here(&["memory", "1M"]);
        assert_eq!(place.names(), ["s"]);
        server.signal(signal);
        let (status, errors) = server.end();
        assert!(status.success(), "{signal}: {status}: {errors}");
        assert_eq!(errors, "", "{signal}");
        assert_eq!(place.names(), [""; 0], "{signal}");
    }
}

#[test]
fn the_uri_is_told_and_serves() {
    let place = Place::new();
    let server = place.serve_here(&["memory", "1M"]);
    let path = place.path("s");
    assert_eq!(
        server.uri,
        format!("nbd+unix:///?socket={}", path.display())
    );
    let mut raw = Raw::connect(&path);
    assert_eq!(raw.size, 1 << 20);
    raw.ask_read(0, 512);
    assert_eq!(raw.answer(512), Ok(vec![0; 512]));
    raw.ask_read(1 << 20, 512);
    assert_eq!(raw.answer(512), Err(22), "beyond the end is EINVAL");
    server.stop();
    assert!(raw.is_closed());

    let server = place.serve(&["-p", "0", "null"]);
    let port = server.uri.strip_prefix("nbd://localhost:").expect("a port");
    std::net::TcpStream::connect(("127.0.0.1", port.parse().expect("a number"))).expect("connects");
    server.stop();
    let server = place.serve(&["-i", "127.0.0.1", "-p", "0", "null"]);
    assert!(server.uri.starts_with("nbd://"), "{}", server.uri);
    server.stop();
    let server = place.serve(&["-U", "-", "null"]);
    assert_eq!(place.names().len(), 1);
    server.stop();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn both_drivers_serve() {
    for driver in ["auto", "poll"] {
        let place = Place::new();
        let disk = place.noise("disk.img", 1 << 20);
        let server = place.serve_here(&["--io", driver, "disk.img"]);
        let mut raw = Raw::connect(&place.path("s"));
        raw.ask_read(4096, 65536);
        let bytes = fs::read(disk).expect("reads");
        assert_eq!(raw.answer(65536).as_deref(), Ok(&bytes[4096..4096 + 65536]));
        drop(raw);
        server.stop();
        assert_eq!(place.names(), ["disk.img"]);
    }
}

#[test]
fn in_the_sandbox_a_disk_is_served_and_no_program_is_run() {
    for driver in ["auto", "poll"] {
        let place = Place::new();
        let disk = place.noise("disk.img", 1 << 20);
        let server = place.serve_here(&["--sandbox", "--io", driver, "disk.img"]);
        let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("lists");
        for thread in threads {
            let status = thread.expect("an entry").path().join("status");
            let status = fs::read_to_string(&status).expect("reads");
            for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
                assert!(status.lines().any(|known| known == line), "{status}");
            }
        }
        let mut raw = Raw::connect(&place.path("s"));
        raw.ask_read(4096, 65536);
        let bytes = fs::read(disk).expect("reads");
        assert_eq!(raw.answer(65536).as_deref(), Ok(&bytes[4096..4096 + 65536]));
        drop(raw);
        server.stop();
    }
}

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    let place = Place::new();
    let mut server = place.serve_here(&["--filter", "delay", "memory", "1M", "rdelay=1"]);
    let mut raw = Raw::connect(&place.path("s"));
    let asked = Instant::now();
    raw.ask_read(0, 4096);
    // The request is on its way: nothing else can show that it was read from the socket.
    std::thread::sleep(Duration::from_millis(300));
    server.signal(reactor::process::TERMINATE);
    assert_eq!(raw.answer(4096), Ok(vec![0; 4096]));
    assert!(
        asked.elapsed() >= Duration::from_millis(900),
        "the delay was kept"
    );
    assert!(raw.is_closed());
    eventually("the server ends", || !server.is_running());
    let (status, errors) = server.end();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_second_signal_does_not_wait() {
    let place = Place::new();
    let mut server = place.serve_here(&["--filter", "delay", "memory", "1M", "rdelay=1000"]);
    let mut raw = Raw::connect(&place.path("s"));
    raw.ask_read(0, 4096);
    std::thread::sleep(Duration::from_millis(300));
    server.signal(reactor::process::TERMINATE);
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.is_running(), "it waits for the request");
    let asked = Instant::now();
    // Again and again: a process that did not see the first yet gets two signals as one.
    eventually("it ends", || {
        server.signal(reactor::process::TERMINATE);
        std::thread::sleep(Duration::from_millis(200));
        !server.is_running()
    });
    assert!(raw.is_closed());
    let (status, errors) = server.end();
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    assert!(status.success(), "{status}: {errors}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn idle_clients_do_not_hold_up_the_end() {
    let place = Place::new();
    let server = place.serve_here(&["null", "1M"]);
    let mut clients: Vec<Raw> = (0..8).map(|_| Raw::connect(&place.path("s"))).collect();
    // One that has not even said hello.
    let silent = std::os::unix::net::UnixStream::connect(place.path("s")).expect("connects");
    let asked = Instant::now();
    server.stop();
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    assert!(clients.iter_mut().all(Raw::is_closed));
    drop(silent);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn the_pid_file_is_there_while_it_serves() {
    let place = Place::new();
    let server = place.serve_here(&["--pid-file", "pid", "null"]);
    let pid = fs::read_to_string(place.path("pid")).expect("a pid file");
    assert_eq!(pid, format!("{}\n", server.pid()));
    server.stop();
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn threads_are_as_many_as_asked_for() {
    let place = Place::new();
    let server = place.serve_here(&["-t", "3", "null"]);
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("tasks");
    let names = tasks.map(|task| {
        let comm = task.expect("a task").path().join("comm");
        fs::read_to_string(comm).expect("a name").trim().to_owned()
    });
    let loops: Vec<String> = names.filter(|name| name.starts_with("blkit-r-")).collect();
    assert_eq!(loops.len(), 2, "beside the main one: {loops:?}");
    server.stop();
}

#[test]
fn it_can_end_with_its_parent() {
    let place = Place::new();
    // The shell ends when its standard input does, and does not wait.
    let script = r#""$0" serve --exit-with-parent -U s null & read line"#;
    let mut shell = place.command("sh");
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_blkit"));
    let mut shell = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut uri = String::new();
    let stdout = shell.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut uri).expect("reads");
    assert!(uri.starts_with("nbd+unix:"), "{uri}");
    drop(shell.stdin.take());
    shell.wait().expect("ends");
    eventually("the server ends with it", || place.names().is_empty());
}

#[test]
fn nobody_listening_to_the_uri_is_no_error() {
    let place = Place::new();
    let mut command: Command = place.blkit(&["serve", "-U", "s", "null"]);
    // Standard output is a pipe whose reader is gone.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut child = command.stdout(writer).spawn().expect("starts");
    eventually("it serves", || place.path("s").exists());
    let mut raw = Raw::connect(&place.path("s"));
    reactor::process::send_signal(child.id() as i32, reactor::process::TERMINATE).expect("sends");
    assert!(crate::bench::wait(&mut child).success());
    assert!(raw.is_closed());
}

#[test]
fn logging_goes_to_standard_error() {
    let place = Place::new();
    let server = place.serve_here(&["-v", "null"]);
    server.signal(reactor::process::TERMINATE);
    let (status, errors) = server.end();
    assert!(status.success());
    assert!(
        errors.contains("DEBUG") && errors.contains("event loops"),
        "{errors}"
    );
    let mut command = place.blkit(&["serve", "-U", "s", "null"]);
    let server = Server::start(command.env("BLKIT_LOG", "debug"));
    server.signal(reactor::process::TERMINATE);
    assert!(server.end().1.contains("DEBUG"));
}
