//! The export of another server, served on: one server behind the other.

use std::{
    fs,
    os::unix::net::UnixListener,
    thread,
    time::{Duration, Instant},
};

use crate::{
    bench::{Place, Server, eventually, have, output, run, told},
    raw::{FLUSH, Raw, WRITE, request},
};

/// A server of `disk.img` on the socket `a`.
fn first(place: &Place) -> Server {
    Server::start(place.blkit(&["serve", "-U", "a"]).arg("disk.img"))
}

fn killed(place: &Place, server: Server) {
    server.signal(9);
    let (status, _) = server.end();
    assert!(!status.success());
    fs::remove_file(place.path("a")).expect("a killed server leaves its socket");
}

#[test]
fn a_disk_is_the_same_behind_two_servers() {
    if !have(&["nbdinfo", "nbdcopy", "qemu-img"]) {
        return;
    }
    let place = Place::new();
    let disk = place.noise("disk.img", 3 << 20);
    let file = fs::File::options().write(true).open(&disk).expect("opens");
    file.set_len(8 << 20).expect("a hole behind");
    let a = first(&place);
    for connections in ["connections=1", "connections=3"] {
        let b = place.serve_here(&[&a.uri, connections]);
        let text = |words: &[&str]| run(place.command(words[0]).args(&words[1..]));
        for words in [&["--map"][..], &["--size"], &["--can", "multi-conn"]] {
            let ask = |uri: &str| text(&[&["nbdinfo"], words, &[uri]].concat());
            assert_eq!(ask(&a.uri), ask(&b.uri), "{words:?}");
        }
        text(&["nbdcopy", &b.uri, "copy.img"]);
        assert_eq!(
            fs::read(&disk).expect("reads"),
            fs::read(place.path("copy.img")).expect("reads")
        );
        text(&["qemu-img", "convert", "-n", "-O", "raw", "copy.img", &b.uri]);
        text(&["qemu-img", "compare", "copy.img", &b.uri]);
        b.stop();
    }
    a.stop();
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_not_noticed() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let mut a = first(&place);
    let b = place.serve_here(&["nbd", &a.uri, "reconnect-delay=60"]);
    let mut client = Raw::connect(&place.path("s"));
    for round in 0..4u8 {
        // Written before, in between, and after: all of it is there.
        for block in 0..64u64 {
            let cookie = block;
            let mut bytes = request(0, WRITE, cookie, block * 4096, 4096);
            bytes.extend_from_slice(&[round + block as u8; 4096]);
            client.send(&bytes);
            if block == 20 {
                killed(&place, a);
                a = first(&place);
            }
        }
        client.send(&request(0, FLUSH, 99, 0, 0));
        let mut answered: Vec<u64> = (0..65).map(|_| client.done()).collect();
        answered.sort_unstable();
        let expected: Vec<u64> = (0..64).chain([99]).collect();
        assert_eq!(answered, expected);
        for block in 0..64u64 {
            client.ask_read(block * 4096, 4096);
            let found = client.answer(4096);
            assert_eq!(
                found,
                Ok(vec![round + block as u8; 4096]),
                "{round} {block}"
            );
        }
    }
    drop(client);
    b.stop();
    a.stop();
}

#[test]
fn without_reconnecting_requests_fail_at_once_and_the_next_client_is_served() {
    for shared in ["shared=false", "shared=true"] {
        let place = Place::new();
        place.sparse("disk.img", 1 << 20);
        let a = first(&place);
        let b = place.serve_here(&["nbd", &a.uri, shared]);
        let mut client = Raw::connect(&place.path("s"));
        client.ask_read(0, 512);
        assert_eq!(client.answer(512), Ok(vec![0; 512]));
        killed(&place, a);
        client.ask_read(0, 512);
        assert_eq!(client.answer(512), Err(5), "EIO");
        client.ask_read(4096, 512);
        assert_eq!(client.answer(512), Err(5), "EIO, again");
        let a = first(&place);
        let mut next = Raw::connect(&place.path("s"));
        next.ask_read(0, 512);
        assert_eq!(next.answer(512), Ok(vec![0; 512]));
        drop((client, next));
        b.stop();
        a.stop();
    }
}

#[test]
fn a_disk_that_came_back_as_another_is_refused() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = first(&place);
    let b = place.serve_here(&["nbd", &a.uri, "reconnect-delay=60"]);
    let mut client = Raw::connect(&place.path("s"));
    killed(&place, a);
    place.sparse("disk.img", 2 << 20);
    let a = first(&place);
    client.ask_read(0, 512);
    assert_eq!(client.answer(512), Err(5), "EIO");
    drop(client);
    a.stop();
    b.signal(reactor::process::TERMINATE);
    let (status, errors) = b.end();
    assert!(status.success());
    assert!(
        errors.contains("had 1048576 bytes, and now has 2097152"),
        "{errors}"
    );
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = first(&place);
    let b = place.serve_here(&["nbd", &a.uri, "timeout=2s"]);
    let mut client = Raw::connect(&place.path("s"));
    // Idle for longer than that is no offence.
    thread::sleep(Duration::from_millis(4500));
    client.ask_read(0, 512);
    assert_eq!(client.answer(512), Ok(vec![0; 512]));
    a.signal(19); // SIGSTOP
    client.ask_read(0, 512);
    assert_eq!(client.answer(512), Err(5), "EIO");
    a.signal(18); // SIGCONT
    drop(client);
    b.stop();
    a.stop();
}

#[test]
fn a_server_is_started_for_each_client_and_ends_with_it() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_blkit");
    let command = format!("command={program}");
    let words = [
        "nbd",
        &command,
        "arg=nbdkit",
        "arg=-s",
        "arg=memory",
        "arg=1M",
    ];
    let b = place.serve_here(&words);
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", b.pid());
        let listed = fs::read_to_string(path).expect("lists");
        listed.split_whitespace().count()
    };
    let mut clients: Vec<Raw> = (0..2).map(|_| Raw::connect(&place.path("s"))).collect();
    clients[0].send(&request(0, WRITE, 1, 0, 3));
    clients[0].send(b"abc");
    clients[0].done();
    let mut found = clients.iter_mut().map(|client| {
        client.ask_read(0, 3);
        client.answer(3)
    });
    assert_eq!(found.next(), Some(Ok(b"abc".to_vec())));
    assert_eq!(found.next(), Some(Ok(vec![0; 3])), "each has its own");
    drop(clients);
    eventually("the servers end", || children() == 0);
    b.stop();
}

#[test]
fn all_clients_share_one_connection() {
    let place = Place::new();
    let command = format!("command={}", env!("CARGO_BIN_EXE_blkit"));
    // Each connection to this server would be a disk of its own.
    let server = ["arg=nbdkit", "arg=-s", "arg=memory", "arg=1M"];
    let words = [&["-t", "3", "nbd", &command, "shared=true"][..], &server].concat();
    let b = place.serve_here(&words);
    // Over three event loops, of which one has the connection.
    let mut clients: Vec<Raw> = thread::scope(|scope| {
        let connect = || Raw::connect(&place.path("s"));
        let started: Vec<_> = (0..9).map(|_| scope.spawn(connect)).collect();
        let joined = started.into_iter().map(|started| started.join());
        joined.map(|joined| joined.expect("connects")).collect()
    });
    for (n, client) in (0u64..).zip(&mut clients) {
        client.send(&request(0, WRITE, n, n * 4096, 4096));
        client.send(&[n as u8 + 1; 4096]);
        assert_eq!(client.done(), n);
        client.send(&request(0, FLUSH, n, 0, 0));
        assert_eq!(client.done(), n);
    }
    for client in &mut clients {
        for n in 0..9 {
            client.ask_read(n * 4096, 4096);
            assert_eq!(client.answer(4096), Ok(vec![n as u8 + 1; 4096]));
        }
        client.ask_read(1 << 20, 512);
        assert_eq!(client.answer(512), Err(22), "EINVAL");
    }
    if have(&["nbdinfo"]) {
        let maps: Vec<String> = (0..6)
            .map(|_| run(place.command("nbdinfo").args(["--map", &b.uri])))
            .collect();
        assert!(maps[0].contains("hole,zero"), "{}", maps[0]);
        assert!(maps.iter().all(|map| *map == maps[0]), "{maps:?}");
    }
    drop(clients);
    b.stop();
}

#[test]
fn exports_go_through_by_name() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("d")).expect("creates");
    place.sparse("d/one", 1 << 20);
    place.sparse("d/two", 2 << 20);
    let a = Server::start(place.blkit(&["serve", "-U", "a"]).arg("./d"));
    let b = place.serve_here(&["nbd", &a.uri, "dynamic-export=true"]);
    let list = run(place.command("nbdinfo").args(["--list", &b.uri]));
    for name in ["export=\"one\":", "export=\"two\":"] {
        assert!(list.contains(name), "{list}");
    }
    let two = b.uri.replace("///?", "///two?");
    let size = run(place.command("nbdinfo").args(["--size", &two]));
    assert_eq!(size.trim(), "2097152");
    let three = b.uri.replace("///?", "///three?");
    let missing = output(place.command("nbdinfo").args(["--size", &three]));
    assert!(!missing.status.success(), "{}", told(&missing));
    b.stop();
    let c = place.serve_here(&["nbd", &a.uri, "export=two"]);
    assert_eq!(Raw::connect(&place.path("s")).size, 2 << 20);
    c.stop();
    a.stop();
}

#[test]
fn a_server_is_reached_by_host_or_over_an_open_socket() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = Server::start(place.blkit(&["serve", "-p", "0"]).arg("disk.img"));
    let port = a.uri.rsplit(':').next().expect("a port").to_owned();
    let b = place.serve_here(&["nbd", "hostname=localhost", &format!("port={port}")]);
    assert_eq!(Raw::connect(&place.path("s")).size, 1 << 20);
    b.stop();
    if !have(&["bash"]) {
        return;
    }
    let script =
        format!(r#"exec 5<>/dev/tcp/localhost/{port} && exec "$0" serve -U s nbd socket-fd=5"#);
    let mut command = place.command("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_blkit")]);
    let b = Server::start(&mut command);
    assert_eq!(Raw::connect(&place.path("s")).size, 1 << 20);
    if have(&["nbdinfo"]) {
        // The socket has been used.
        let second = output(place.command("nbdinfo").args(["--size", &b.uri]));
        assert!(!second.status.success(), "{}", told(&second));
    }
    b.stop();
    a.stop();
}

#[test]
fn a_client_can_wait_for_a_server_that_starts_later() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let b = place.serve_here(&["nbd", "socket=a", "retry=60"]);
    let a = thread::scope(|scope| {
        let client = scope.spawn(|| Raw::connect(&place.path("s")).size);
        thread::sleep(Duration::from_millis(300));
        let a = first(&place);
        assert_eq!(client.join().expect("connects"), 1 << 20);
        a
    });
    b.stop();
    a.stop();
}

#[test]
fn requests_do_not_wait_longer_than_told_for_a_server_that_says_nothing() {
    let place = Place::new();
    place.sparse("disk.img", 1 << 20);
    let a = first(&place);
    let b = place.serve_here(&["nbd", &a.uri, "reconnect-delay=1"]);
    let mut client = Raw::connect(&place.path("s"));
    killed(&place, a);
    // Somebody is there, and never speaks: the handshake's own deadline is a minute.
    let _silent = UnixListener::bind(place.path("a")).expect("binds");
    let began = Instant::now();
    client.ask_read(0, 512);
    assert_eq!(client.answer(512), Err(5), "EIO");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "it waited for the handshake"
    );
    drop(client);
    b.stop();
}

#[test]
fn what_cannot_work_is_told() {
    let place = Place::new();
    let refused = |words: &[&str]| {
        let output = output(place.blkit(&["serve", "-U", "s", "nbd"]).args(words));
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        told(&output)
    };
    let table: [(&[&str], &str); 6] = [
        (&["nbd://h:x/"], "'x' is not a TCP port, at character 9"),
        (&["nbds://h/", "tls=off"], "the URI's scheme requires TLS"),
        (&[], "is required"),
        (&["socket=s", "hostname=h"], "cannot both be given"),
        (&["socket=s", "port=1"], "port needs hostname or vsock"),
        (&["command=x", "connections=2"], "single connection"),
    ];
    for (words, expected) in table {
        let text = refused(words);
        assert!(text.contains(expected), "{words:?}: {text}");
    }
}
