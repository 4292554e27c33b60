//! Our client and our server, in memory: whom the client lets itself be served by.

use std::{fs, path::Path};

use crate::certificates::{Authority, Kind};
use tls::{Acceptor, ClientConfig, Config, Connector, Error, Session};

/// Carries bytes both ways until both are done or have failed.
fn meet(acceptor: &Acceptor, connector: &Connector) -> (Session, Session) {
    let mut server = acceptor.accept().unwrap();
    let mut client = connector.connect().unwrap();
    assert!(client.speaks_first() && !server.speaks_first());
    for _ in 0..10 {
        step(&mut client, &mut server);
        step(&mut server, &mut client);
        if [&client, &server]
            .iter()
            .all(|side| side.is_done() || side.failure().is_some())
        {
            return (client, server);
        }
    }
    panic!("the handshake does not end");
}

fn step(from: &mut Session, to: &mut Session) {
    let done = from.handshake().is_ok_and(|done| done);
    to.feed(&from.take_outgoing());
    // What was refused after the handshake is told by the first record.
    if done && to.is_done() {
        let _ = to.decrypt();
    }
}

/// So many bytes from one to the other, and the end.
fn say(from: &mut Session, to: &mut Session, bytes: &[u8]) {
    from.plaintext().extend_from_slice(bytes);
    from.encrypt().unwrap();
    from.close();
    to.feed(&from.take_outgoing());
    to.decrypt().unwrap();
    assert!(to.received() == bytes && to.is_closed());
}

fn acceptor(authority: &Authority, verify_peer: bool, priority: &str) -> Acceptor {
    Acceptor::new(Config {
        certificates: Some(authority.server()),
        verify_peer,
        priority: Some(priority.into()),
        ..Config::default()
    })
    .unwrap()
}

fn trusting(directory: &Path, hostname: &str) -> ClientConfig {
    ClientConfig {
        certificates: Some(directory.to_owned()),
        hostname: (!hostname.is_empty()).then(|| hostname.to_owned()),
        ..ClientConfig::default()
    }
}

/// Why a client with this configuration leaves.
fn refused(acceptor: &Acceptor, config: ClientConfig) -> String {
    let (client, server) = meet(acceptor, &Connector::new(config).unwrap());
    assert!(!client.is_done());
    assert!(server.failure().is_some(), "the server hears of it");
    match client.failure() {
        Some(Error::Handshake(why)) => why.clone(),
        other => panic!("{other:?}"),
    }
}

const PRIORITIES: [&str; 2] = ["NORMAL", "NORMAL:-VERS-TLS1.3"];

#[test]
fn both_sides_talk() {
    let authority = Authority::new("CA");
    authority.issue_server(2, "-0", Kind::Rsa);
    let alice = authority.issue_client(5, "alice");
    for priority in PRIORITIES {
        let acceptor = acceptor(&authority, true, priority);
        for hostname in ["localhost", "127.0.0.1", ""] {
            let connector = Connector::new(trusting(&alice, hostname)).unwrap();
            let (mut client, mut server) = meet(&acceptor, &connector);
            assert_eq!(client.failure(), None);
            let names = [&client, &server].map(|side| side.peer().identity.unwrap());
            assert_eq!(names, ["CN=localhost,O=House", "CN=alice,O=House"]);
            let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
            say(&mut client, &mut server, &long);
            say(&mut server, &mut client, &long);
        }
    }
}

#[test]
fn a_server_is_who_it_should_be() {
    let (authority, other) = (Authority::new("CA"), Authority::new("Other"));
    let trusted = authority.anonymous();
    let empty = tempfile::tempdir().unwrap();
    other.write_ca(empty.path());
    for priority in PRIORITIES {
        let acceptor = acceptor(&authority, false, priority);
        for wrong in ["example.com", "127.0.0.2", "localhost.example.com"] {
            let why = refused(&acceptor, trusting(&trusted, wrong));
            assert!(why.contains("mismatch"), "{why}");
            let careless = ClientConfig {
                verify_peer: false,
                ..trusting(&trusted, wrong)
            };
            let (client, _) = meet(&acceptor, &Connector::new(careless).unwrap());
            assert!(client.is_done());
        }
        let why = refused(&acceptor, trusting(empty.path(), "localhost"));
        assert!(why.contains("the server's certificate"), "{why}");
    }
    // Whom the system trusts: not our test.
    let system = ClientConfig {
        hostname: Some("localhost".into()),
        ..ClientConfig::default()
    };
    let why = refused(&acceptor(&authority, false, "NORMAL"), system);
    assert!(why.contains("the server's certificate"), "{why}");
}

#[test]
fn a_revoked_server_is_refused() {
    let authority = Authority::new("CA");
    let trusted = authority.anonymous();
    let crl = |serials: &[u8]| {
        authority.revoke(serials);
        fs::rename(
            authority.server().join("ca-crl.pem"),
            trusted.join("ca-crl.pem"),
        )
        .unwrap();
    };
    let acceptor = acceptor(&authority, false, "NORMAL");
    crl(&[9]);
    let connector = Connector::new(trusting(&trusted, "localhost")).unwrap();
    assert!(meet(&acceptor, &connector).0.is_done());
    crl(&[1]);
    let why = refused(&acceptor, trusting(&trusted, "localhost"));
    assert!(why.contains("revoked"), "{why}");
}

#[test]
fn a_client_that_shows_nothing_is_turned_away() {
    let authority = Authority::new("CA");
    let trusted = authority.anonymous();
    let acceptor = acceptor(&authority, true, "NORMAL:-VERS-TLS1.3");
    let connector = Connector::new(trusting(&trusted, "localhost")).unwrap();
    let (client, server) = meet(&acceptor, &connector);
    assert!(client.failure().is_some() && server.failure().is_some());
}

#[test]
fn keys_prove_both_ends() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let known = file("known", "alice:0102030405060708\nbob:ff00ff00\n");
    let with = |path: &Path, user: &str| ClientConfig {
        psk: Some(path.to_owned()),
        username: Some(user.into()),
        // Of no meaning here.
        hostname: Some("example.com".into()),
        ..ClientConfig::default()
    };
    let longest = "u".repeat(128);
    let users = file("users", &format!("{longest}:01\n"));
    for priority in PRIORITIES {
        let acceptor = |path: &Path| {
            Acceptor::new(Config {
                psk: Some(path.to_owned()),
                priority: Some(priority.into()),
                ..Config::default()
            })
            .unwrap()
        };
        for (path, user) in [(&known, "alice"), (&known, "bob"), (&users, &longest)] {
            let connector = Connector::new(with(path, user)).unwrap();
            let (client, server) = meet(&acceptor(path), &connector);
            assert!(client.is_done(), "{:?}", client.failure());
            assert_eq!(server.peer().identity.as_deref(), Some(user));
        }
        let wrong = file("wrong", "alice:ffffffffffffffff\n");
        let (client, _) = meet(
            &acceptor(&known),
            &Connector::new(with(&wrong, "alice")).unwrap(),
        );
        assert!(client.failure().is_some());
    }
    let nobody = Connector::new(with(&known, "eve")).unwrap_err();
    assert!(
        nobody.to_string().ends_with("there is no user \"eve\""),
        "{nobody}"
    );
}

#[test]
fn what_cannot_be_used_is_told_at_once() {
    let empty = tempfile::tempdir().unwrap();
    let error = Connector::new(trusting(empty.path(), "")).unwrap_err();
    assert!(error.to_string().contains("ca-cert.pem"), "{error}");
    let authority = Authority::new("CA");
    let half = authority.issue_client(5, "half");
    fs::remove_file(half.join("client-key.pem")).unwrap();
    let error = Connector::new(trusting(&half, "")).unwrap_err();
    assert!(error.to_string().contains("client-key.pem"), "{error}");
    let priority = ClientConfig {
        priority: Some("NORMAL:+FOO".into()),
        ..trusting(&authority.anonymous(), "")
    };
    assert!(matches!(
        Connector::new(priority),
        Err(Error::Priority { .. })
    ));
}
