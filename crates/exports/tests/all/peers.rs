//! Real clients over TLS: libnbd's and QEMU's tools, which use GnuTLS. Who is not installed is
//! skipped.

use std::{
    net::TcpListener,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use blkit_exports::nbd::{Options, Server, Tls};
use nbd::server::ServerOptions;

use crate::{certificates::Authority, sessions::World};

/// Runs a program to its end; `None`, and a line about it, if there is no such program.
fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).env("LC_ALL", "C").output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("SKIP: {program}: {error}");
            None
        }
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[track_caller]
fn good(program: &str, args: &[&str]) -> Option<String> {
    let output = run(program, args)?;
    let said = text(&output);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    Some(said)
}

#[track_caller]
fn bad(program: &str, args: &[&str]) -> Option<String> {
    let output = run(program, args)?;
    let said = text(&output);
    assert!(!output.status.success(), "{program} {args:?}: {said}");
    Some(said)
}

/// A server of 64 MiB of memory, on TCP.
fn world(acceptor: tls::Acceptor) -> (World, u16) {
    let world = World::new(
        testkit::MemoryDisk::new(64 << 20),
        Options {
            tls: Tls::Require(Arc::new(acceptor)),
            ..Options::default()
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = serving(&world);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream.into());
        }
    });
    (world, port)
}

/// How a thread hands connections to the server.
fn serving(world: &World) -> impl Fn(std::os::fd::OwnedFd) + Send + 'static {
    let (inbox, server): (_, Arc<Server>) = (world.served.inbox(0).clone(), world.server.clone());
    move |fd| {
        let server = server.clone();
        inbox.run(move |reactor| server.serve_socket(reactor, fd, "peer".into()));
    }
}

fn x509(authority: &Authority, verify_peer: bool, priority: Option<&str>) -> tls::Acceptor {
    let config = tls::Config {
        certificates: Some(authority.server()),
        verify_peer,
        priority: priority.map(str::to_owned),
        ..tls::Config::default()
    };
    tls::Acceptor::new(config).unwrap()
}

fn psk(path: &Path, priority: Option<&str>) -> tls::Acceptor {
    let config = tls::Config {
        psk: Some(path.to_owned()),
        priority: priority.map(str::to_owned),
        ..tls::Config::default()
    };
    tls::Acceptor::new(config).unwrap()
}

const PRIORITIES: [Option<&str>; 4] = [
    None,
    Some("NORMAL:-VERS-TLS1.3"),
    Some("NORMAL:-VERS-TLS1.2"),
    Some("@SYSTEM"),
];

fn key_file(authority: &Authority) -> PathBuf {
    let path = authority.path("keys.psk");
    std::fs::write(&path, "alice:000102030405060708090a0b0c0d0e0f\n").unwrap();
    path
}

#[test]
fn libnbd_with_certificates() {
    let authority = Authority::new("CA");
    let anonymous = authority.anonymous();
    for priority in PRIORITIES {
        let (world, port) = world(x509(&authority, false, priority));
        let uri = format!(
            "nbds://localhost:{port}/?tls-certificates={}",
            anonymous.display()
        );
        let Some(said) = good("nbdinfo", &[&uri]) else {
            return;
        };
        assert!(
            said.contains("with TLS") && said.contains("67108864"),
            "{said}"
        );
        assert!(good("nbdinfo", &["--list", &uri]).is_some());
        // In the clear there is nothing.
        bad("nbdinfo", &[&format!("nbd://localhost:{port}/")]);
        world.until("all are gone", |server| server.connections() == 0);
    }
    // Whom a client does not trust it does not talk to.
    let other = Authority::new("Other");
    let stranger = other.anonymous();
    let (world, port) = world(x509(&authority, false, None));
    let uri = format!(
        "nbds://localhost:{port}/?tls-certificates={}",
        stranger.display()
    );
    bad("nbdinfo", &[&uri]);
    world.until("it is counted", |server| server.stats().tls_failures == 1);
}

#[test]
fn libnbd_with_verified_certificates() {
    let authority = Authority::new("CA");
    let [alice, bob] = [(5, "alice"), (6, "bob")].map(|(n, name)| authority.issue_client(n, name));
    let anonymous = authority.anonymous();
    authority.revoke(&[6]);
    for priority in PRIORITIES {
        let (world, port) = world(x509(&authority, true, priority));
        let uri = |directory: &Path| {
            format!(
                "nbds://localhost:{port}/?tls-certificates={}",
                directory.display()
            )
        };
        if good("nbdinfo", &[&uri(&alice)]).is_none() {
            return;
        }
        bad("nbdinfo", &[&uri(&bob)]);
        bad("nbdinfo", &[&uri(&anonymous)]);
        world.until("both are counted", |server| {
            server.stats().tls_failures == 2
        });
        // Bob is forgiven, and alice is not: for the next connections.
        authority.revoke(&[5]);
        good("nbdinfo", &[&uri(&bob)]);
        bad("nbdinfo", &[&uri(&alice)]);
        authority.revoke(&[6]);
    }
}

/// A file to copy: not a multiple of anything, and with holes.
fn image(authority: &Authority) -> (PathBuf, Vec<u8>) {
    let mut bytes: Vec<u8> = (0..5_000_000u32).flat_map(|n| n.to_le_bytes()).collect();
    bytes[1 << 20..2 << 20].fill(0);
    bytes.resize(64 << 20, 0);
    let path = authority.path("image");
    std::fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[test]
fn libnbd_with_keys_copies_both_ways() {
    let authority = Authority::new("CA");
    let keys = key_file(&authority);
    let (from, bytes) = image(&authority);
    for priority in PRIORITIES {
        let (world, port) = world(psk(&keys, priority));
        let at = |user: &str, keys: &Path| {
            format!(
                "nbds://{user}@localhost:{port}/?tls-psk-file={}",
                keys.display()
            )
        };
        let uri = at("alice", &keys);
        let Some(said) = good("nbdinfo", &[&uri]) else {
            return;
        };
        assert!(said.contains("with TLS"), "{said}");
        let back = authority.path("back");
        let [from, to] = [&from, &back].map(|path| path.to_str().unwrap());
        if good("nbdcopy", &[from, &uri]).is_some() {
            good("nbdcopy", &[&uri, to]);
            assert!(std::fs::read(&back).unwrap() == bytes, "{priority:?}");
        }
        let wrong = authority.path("wrong.psk");
        std::fs::write(&wrong, "alice:ff\nbob:ff\n").unwrap();
        bad("nbdinfo", &[&at("alice", &wrong)]);
        bad("nbdinfo", &[&at("bob", &wrong)]);
        world.until("both are counted", |server| {
            server.stats().tls_failures == 2
        });
        world.until("all are gone", |server| server.connections() == 0);
    }
}

#[test]
fn libnbd_over_a_unix_socket() {
    let authority = Authority::new("CA");
    let keys = key_file(&authority);
    let (world, _) = world(psk(&keys, None));
    let socket = authority.path("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let serve = serving(&world);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream.into());
        }
    });
    let uri = format!(
        "nbds+unix://alice@/?socket={}&tls-psk-file={}",
        socket.display(),
        keys.display()
    );
    if let Some(said) = good("nbdinfo", &[&uri]) {
        assert!(said.contains("base:allocation"), "{said}");
        good("nbdinfo", &["--map", &uri]);
    }
}

#[test]
fn qemu_with_certificates_and_keys() {
    let authority = Authority::new("CA");
    let keys = key_file(&authority);
    let alice = authority.issue_client(5, "alice");
    let bob = authority.issue_client(6, "bob");
    authority.revoke(&[6]);
    let (from, bytes) = image(&authority);
    let dir = keys.parent().unwrap();
    let psk_object = format!(
        "tls-creds-psk,id=tls0,dir={},username=alice,endpoint=client",
        dir.display()
    );
    let x509_object = |dir: &Path| {
        format!(
            "tls-creds-x509,id=tls0,dir={},endpoint=client",
            dir.display()
        )
    };
    for (acceptor, object) in [
        (psk(&keys, None), psk_object),
        (x509(&authority, true, None), x509_object(&alice)),
    ] {
        let (world, port) = world(acceptor);
        let target = format!(
            "driver=raw,file.driver=nbd,file.host=localhost,file.port={port},file.tls-creds=tls0"
        );
        let info = ["info", "--object", &object, "--image-opts", &target];
        let Some(said) = good("qemu-img", &info) else {
            return;
        };
        assert!(said.contains("64 MiB"), "{said}");
        let from = from.to_str().unwrap();
        let back = authority.path("back");
        let args = [
            "convert",
            "-n",
            "--object",
            &object,
            "-f",
            "raw",
            "--target-image-opts",
        ];
        good("qemu-img", &[&args[..], &[from, &target]].concat());
        let args = [
            "convert",
            "--object",
            &object,
            "--image-opts",
            "-O",
            "raw",
            &target,
        ];
        good("qemu-img", &[&args[..], &[back.to_str().unwrap()]].concat());
        assert!(std::fs::read(&back).unwrap() == bytes);
        world.until("all are gone", |server| server.connections() == 0);
    }
    let (world, port) = world(x509(&authority, true, None));
    let target = format!("driver=nbd,host=localhost,port={port},tls-creds=tls0");
    let object = x509_object(&bob);
    bad(
        "qemu-img",
        &["info", "--object", &object, "--image-opts", &target],
    );
    world.until("it is counted", |server| server.stats().tls_failures == 1);
}

#[test]
fn old_handshakes_with_real_clients() {
    for oldstyle in [true, false] {
        let world = World::new(
            testkit::MemoryDisk::new(1 << 20),
            Options {
                oldstyle,
                protocol: ServerOptions {
                    fixed_newstyle: false,
                    no_zeroes: false,
                    structured_replies: false,
                    extended_headers: false,
                    ..ServerOptions::default()
                },
                ..Options::default()
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = serving(&world);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream.into());
            }
        });
        let uri = format!("nbd://localhost:{port}/");
        if let Some(said) = good("nbdinfo", &["--size", &uri]) {
            assert_eq!(said.trim(), "1048576");
        }
        if let Some(said) = good("qemu-img", &["info", "-f", "raw", &uri]) {
            assert!(said.contains("1 MiB"), "{said}");
        }
    }
}
