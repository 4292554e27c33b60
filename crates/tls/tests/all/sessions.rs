//! Sessions with OpenSSL as the client, all in memory.

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
};

use crate::certificates::{Authority, Kind, new_key};
use openssl::{
    ssl::{
        ErrorCode, Ssl, SslContextBuilder, SslFiletype, SslMethod, SslStream, SslVerifyMode,
        SslVersion,
    },
    symm::Cipher,
};
use tls::{Acceptor, Config, Error, Peer, Session};

const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// The client's end, in memory.
#[derive(Default)]
struct Wire {
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.incoming.len().min(buf.len());
        buf[..n].copy_from_slice(&self.incoming[..n]);
        self.incoming.drain(..n);
        Ok(n)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client has.
#[derive(Clone, Copy)]
enum Has<'a> {
    /// A directory with certificates.
    Directory(&'a Path),
    /// A user's name and key.
    Key(&'static str, &'static [u8]),
}

fn client(has: Has<'_>, version: SslVersion) -> SslStream<Wire> {
    let mut builder = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    match has {
        Has::Directory(directory) => {
            builder.set_ca_file(directory.join("ca-cert.pem")).unwrap();
            builder.set_verify(SslVerifyMode::PEER);
            let certificate = directory.join("client-cert.pem");
            if certificate.exists() {
                let key = directory.join("client-key.pem");
                builder
                    .set_certificate_file(certificate, SslFiletype::PEM)
                    .unwrap();
                builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
            }
        }
        Has::Key(user, key) => {
            builder.set_cipher_list("PSK").unwrap();
            builder.set_psk_client_callback(move |_, _, identity, room| {
                identity[..user.len()].copy_from_slice(user.as_bytes());
                identity[user.len()] = 0;
                room[..key.len()].copy_from_slice(key);
                Ok(key.len())
            });
        }
    }
    SslStream::new(Ssl::new(&builder.build()).unwrap(), Wire::default()).unwrap()
}

/// Carries bytes both ways until both are done, or one fails: the server's error and the client's.
fn shake(
    session: &mut Session,
    client: &mut SslStream<Wire>,
) -> Result<(), (Option<Error>, String)> {
    for _ in 0..10 {
        let connected = client.connect();
        let sent = std::mem::take(&mut client.get_mut().outgoing);
        session.feed(&sent);
        let done = session.handshake();
        let answer = session.take_outgoing();
        client.get_mut().incoming.extend(answer);
        match (connected, done) {
            (Ok(()), Ok(true)) => return Ok(()),
            (Err(error), _) if error.code() != ErrorCode::WANT_READ => {
                return Err((None, error.to_string()));
            }
            (_, Err(error)) => {
                // The client hears of it now, or, in TLS 1.3, with the first read.
                let mut heard = client.connect();
                if heard.is_ok() {
                    heard = client.ssl_read(&mut [0; 1]).map(drop);
                }
                return Err((Some(error), heard.unwrap_err().to_string()));
            }
            _ => {}
        }
    }
    panic!("the handshake does not end");
}

/// Both directions, more than a record, and the end of both.
fn talk(session: &mut Session, client: &mut SslStream<Wire>) {
    let long: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    for message in [&b"hello"[..], &long] {
        client.write_all(message).unwrap();
        // In pieces of an odd size.
        for piece in std::mem::take(&mut client.get_mut().outgoing).chunks(997) {
            session.feed(piece);
            session.decrypt().unwrap();
        }
        assert_eq!(session.received(), message);
        session.consume(1);
        assert_eq!(session.received(), &message[1..]);
        session.consume(message.len() - 1);

        session.plaintext().extend_from_slice(message);
        session.encrypt().unwrap();
        let answer = session.take_outgoing();
        assert!(answer.len() > message.len() && !answer.windows(5).any(|w| w == b"hello"));
        client.get_mut().incoming.extend(answer);
        let mut read = vec![0; message.len()];
        client.read_exact(&mut read).unwrap();
        assert_eq!(read, message);
    }
    session.trim();
    session.close();
    client.get_mut().incoming.extend(session.take_outgoing());
    let ended = client.ssl_read(&mut [0; 1]).unwrap_err();
    assert_eq!(ended.code(), ErrorCode::ZERO_RETURN, "a clean end");
    client.shutdown().unwrap();
    assert!(!session.is_closed());
    let sent = std::mem::take(&mut client.get_mut().outgoing);
    session.feed(&sent);
    session.decrypt().unwrap();
    assert!(session.is_closed() && session.received().is_empty());
}

fn x509(authority: &Authority, verify_peer: bool) -> Acceptor {
    Acceptor::new(Config {
        certificates: Some(authority.server()),
        verify_peer,
        ..Config::default()
    })
    .unwrap()
}

fn psk(path: &Path) -> Config {
    Config {
        psk: Some(path.to_owned()),
        ..Config::default()
    }
}

#[test]
fn certificates_with_and_without_a_name() {
    let authority = Authority::new("CA");
    let alice = authority.issue_client(5, "alice");
    let anonymous = authority.anonymous();
    for version in VERSIONS {
        let acceptor = x509(&authority, false);
        let mut session = acceptor.accept().unwrap();
        let mut peer = client(Has::Directory(&alice), version);
        shake(&mut session, &mut peer).unwrap();
        // Who is not asked does not tell.
        assert_eq!(session.peer(), Peer::default());
        assert!(
            session.agreed().contains("AES_128_GCM") || session.agreed().contains("AES128-GCM")
        );
        talk(&mut session, &mut peer);

        let acceptor = x509(&authority, true);
        let mut session = acceptor.accept().unwrap();
        assert_eq!(session.peer(), Peer::default());
        let mut peer = client(Has::Directory(&alice), version);
        shake(&mut session, &mut peer).unwrap();
        let known = Peer {
            identity: Some("CN=alice,O=House".into()),
            issuer: Some("CN=CA,O=House".into()),
        };
        assert_eq!(session.peer(), known);
        talk(&mut session, &mut peer);

        let mut session = acceptor.accept().unwrap();
        let refused = shake(
            &mut session,
            &mut client(Has::Directory(&anonymous), version),
        );
        let (Some(Error::Handshake(why)), told) = refused.unwrap_err() else {
            panic!("the server refuses")
        };
        assert!(why.contains("did not return a certificate"), "{why}");
        assert!(told.contains("alert"), "{told}");
    }
}

#[test]
fn strangers_and_the_revoked_are_refused() {
    let (authority, other) = (Authority::new("CA"), Authority::new("Other"));
    let [alice, bob] = [(5, "alice"), (6, "bob")].map(|(n, name)| authority.issue_client(n, name));
    let stranger = other.issue_client(5, "alice");
    authority.write_ca(&stranger);
    authority.revoke(&[6, 7]);
    let acceptor = x509(&authority, true);
    for version in VERSIONS {
        let mut session = acceptor.accept().unwrap();
        shake(&mut session, &mut client(Has::Directory(&alice), version)).unwrap();
        let table = [
            (&bob, "certificate revoked"),
            (&stranger, "issuer certificate"),
        ];
        for (who, why) in table {
            let mut session = acceptor.accept().unwrap();
            let refused = shake(&mut session, &mut client(Has::Directory(who), version));
            let (Some(Error::Handshake(text)), told) = refused.unwrap_err() else {
                panic!("the server refuses")
            };
            assert!(text.contains(why), "{text}");
            assert!(told.contains("alert"), "{told}");
            assert!(session.failure().is_some());
            assert!(session.handshake().is_err() && session.decrypt().is_err());
        }
    }
    // A server's certificate is not for a client.
    let directory = authority.path("server-as-client");
    fs::create_dir(&directory).unwrap();
    for what in ["cert", "key"] {
        let from = authority.server().join(format!("server-{what}.pem"));
        fs::copy(from, directory.join(format!("client-{what}.pem"))).unwrap();
    }
    authority.write_ca(&directory);
    let mut session = acceptor.accept().unwrap();
    let peer = &mut client(Has::Directory(&directory), SslVersion::TLS1_3);
    let (error, _) = shake(&mut session, peer).unwrap_err();
    assert!(error.unwrap().to_string().contains("purpose"));
}

#[test]
fn keys_let_their_users_in_and_tell_others_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "alice:0102030405060708\nbob:ff\n").unwrap();
    let acceptor = Acceptor::new(psk(file.path())).unwrap();
    for version in VERSIONS {
        for (user, key) in [("alice", &[1, 2, 3, 4, 5, 6, 7, 8][..]), ("bob", &[0xff])] {
            let mut session = acceptor.accept().unwrap();
            let mut peer = client(Has::Key(user, key), version);
            shake(&mut session, &mut peer).unwrap();
            let known = Peer {
                identity: Some(user.into()),
                issuer: None,
            };
            assert_eq!(session.peer(), known);
            assert!(!peer.ssl().session_reused() || version == SslVersion::TLS1_3);
            talk(&mut session, &mut peer);
        }
        let refused =
            [("alice", "user \"alice\""), ("eve\n", "no user \"eve\\n\"")].map(|(user, why)| {
                let mut session = acceptor.accept().unwrap();
                let mut peer = client(Has::Key(user, &[9; 8]), version);
                let (error, told) = shake(&mut session, &mut peer).unwrap_err();
                let error = error.expect("the server refuses").to_string();
                assert!(error.contains(why) && !error.contains('\n'), "{error}");
                assert_eq!(session.peer(), Peer::default());
                told
            });
        assert!(refused[0].contains("alert"), "{refused:?}");
        assert_eq!(
            refused[0], refused[1],
            "an unknown user looks like a wrong key"
        );
    }
    // Nobody gets in without a key.
    let authority = Authority::new("CA");
    for version in VERSIONS {
        let mut session = acceptor.accept().unwrap();
        let peer = &mut client(Has::Directory(&authority.anonymous()), version);
        assert!(shake(&mut session, peer).unwrap_err().0.is_some());
    }
}

#[test]
fn changed_files_count_for_the_next_connection() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "alice:01\n").unwrap();
    let acceptor = Acceptor::new(psk(file.path())).unwrap();
    let try_in = |user, key: &'static [u8]| {
        let mut session = acceptor.accept().unwrap();
        let mut peer = client(Has::Key(user, key), SslVersion::TLS1_3);
        shake(&mut session, &mut peer).map(|()| (session, peer))
    };
    let (mut old, mut old_peer) = try_in("alice", &[1]).ok().unwrap();
    fs::write(&file, "bob:0202\n").unwrap();
    assert!(try_in("alice", &[1]).is_err());
    assert!(try_in("bob", &[2, 2]).is_ok());
    // What cannot be used lets nobody in until it is mended.
    fs::write(&file, "bob:0202\noops\n").unwrap();
    for _ in 0..2 {
        let error = acceptor.accept().err().unwrap().to_string();
        assert!(error.ends_with("line 2: is not USER:KEY"), "{error}");
    }
    fs::remove_file(&file).unwrap();
    let error = acceptor.accept().err().unwrap().to_string();
    assert!(error.ends_with("No such file or directory"), "{error}");
    fs::write(&file, "carol:030303\n").unwrap();
    assert!(try_in("carol", &[3, 3, 3]).is_ok());
    // Sessions that exist go on.
    talk(&mut old, &mut old_peer);

    let authority = Authority::new("CA");
    let acceptor = x509(&authority, true);
    let alice = authority.issue_client(5, "alice");
    let served = || {
        let mut session = acceptor.accept().unwrap();
        let mut peer = client(Has::Directory(&alice), SslVersion::TLS1_2);
        shake(&mut session, &mut peer).map(|()| {
            let certificate = peer.ssl().peer_certificate().unwrap();
            certificate
                .serial_number()
                .to_bn()
                .unwrap()
                .to_dec_str()
                .unwrap()
                .to_string()
        })
    };
    assert_eq!(served().unwrap(), "1");
    authority.issue_server(77, "", Kind::Ec);
    assert_eq!(served().unwrap(), "77");
    authority.revoke(&[]);
    assert_eq!(served().unwrap(), "77");
    authority.revoke(&[5]);
    assert!(served().is_err());
}

#[test]
fn what_cannot_be_used_is_said_at_the_start() {
    let start = |authority: &Authority| {
        let config = Config {
            certificates: Some(authority.server()),
            ..Config::default()
        };
        let error = Acceptor::new(config).expect_err("an error").to_string();
        assert!(!error.contains('\n'), "{error:?}");
        error
    };
    let says = |authority: &Authority, file: &str, why: &str| {
        let error = start(authority);
        let begin = format!("{}: ", authority.server().join(file).display());
        assert!(error.starts_with(&begin) && error.contains(why), "{error}");
    };
    for file in ["ca-cert.pem", "server-cert.pem", "server-key.pem"] {
        let authority = Authority::new("CA");
        let path = authority.server().join(file);
        fs::write(&path, "nothing of the kind\n").unwrap();
        says(&authority, file, "");
        fs::remove_file(&path).unwrap();
        says(&authority, file, "No such file");
    }
    let authority = Authority::new("CA");
    let key = new_key(Kind::Ec);
    let path = authority.server().join("server-key.pem");
    fs::write(&path, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    says(&authority, "server-key.pem", "does not belong to");
    let locked = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_128_cbc(), b"secret");
    fs::write(&path, locked.unwrap()).unwrap();
    says(&authority, "server-key.pem", "pass phrase");

    let authority = Authority::new("CA");
    fs::write(authority.server().join("ca-crl.pem"), "").unwrap();
    says(&authority, "ca-crl.pem", "revocation list");

    let authority = Authority::new("CA");
    authority.issue_server(2, "-0", Kind::Rsa);
    x509(&authority, false);
    authority.issue_server(3, "-1", Kind::Ec);
    says(&authority, "server-cert-1.pem", "already");
    fs::remove_file(authority.server().join("server-cert-1.pem")).unwrap();
    says(&authority, "server-cert-1.pem", "No such file");

    let none = |priority: &str, psk: Option<&Path>| {
        let config = Config {
            certificates: Some(authority.server()),
            psk: psk.map(Path::to_owned),
            priority: Some(priority.into()),
            ..Config::default()
        };
        Acceptor::new(config).expect_err("an error").to_string()
    };
    assert!(none("NORMAL:%COMPAT", None).contains("\"%COMPAT\" is not known"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, "a:00").unwrap();
    let only = "NONE:+VERS-TLS1.2:+AES-256-GCM:+ECDHE-RSA";
    assert!(none(only, Some(file.path())).contains("no cipher suite for pre-shared keys"));
}

#[test]
fn a_second_kind_of_key_serves_clients_that_want_it() {
    let authority = Authority::new("CA");
    authority.issue_server(2, "-0", Kind::Rsa);
    let config = Config {
        certificates: Some(authority.server()),
        priority: Some("NORMAL:-ECDHE-ECDSA:-VERS-TLS1.3".into()),
        ..Config::default()
    };
    let mut session = Acceptor::new(config).unwrap().accept().unwrap();
    let mut peer = client(Has::Directory(&authority.anonymous()), SslVersion::TLS1_2);
    shake(&mut session, &mut peer).unwrap();
    assert!(session.agreed().starts_with("TLSv1.2 ECDHE-RSA-"));
    // The other version is not to be had.
    let mut session = x509(&authority, false).accept().unwrap();
    let mut peer = client(Has::Directory(&authority.anonymous()), SslVersion::TLS1_3);
    shake(&mut session, &mut peer).unwrap();
    let config = Config {
        certificates: Some(authority.server()),
        priority: Some("NORMAL:-VERS-TLS1.3".into()),
        ..Config::default()
    };
    let mut session = Acceptor::new(config).unwrap().accept().unwrap();
    let mut peer = client(Has::Directory(&authority.anonymous()), SslVersion::TLS1_3);
    assert!(shake(&mut session, &mut peer).is_err());
}

#[test]
fn forged_records_and_plain_text_end_a_session() {
    let authority = Authority::new("CA");
    let acceptor = x509(&authority, false);
    for bytes in [
        &b"IHAVEOPT\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0"[..],
        &[0xff; 40_000],
    ] {
        let mut session = acceptor.accept().unwrap();
        session.feed(bytes);
        assert!(matches!(session.handshake(), Err(Error::Handshake(_))));
        assert!(session.received().is_empty());
    }
    for version in VERSIONS {
        let mut session = acceptor.accept().unwrap();
        let mut peer = client(Has::Directory(&authority.anonymous()), version);
        shake(&mut session, &mut peer).unwrap();
        peer.write_all(b"first").unwrap();
        let good = std::mem::take(&mut peer.get_mut().outgoing);
        peer.write_all(b"second").unwrap();
        let mut forged = std::mem::take(&mut peer.get_mut().outgoing);
        *forged.last_mut().unwrap() ^= 1;
        session.feed(&[good, forged].concat());
        assert!(matches!(session.decrypt(), Err(Error::Session(_))));
        assert_eq!(session.received(), b"first", "what came before was good");
        assert!(!session.outgoing().is_empty(), "the client is told");
        session.plaintext().extend_from_slice(b"answer");
        assert!(session.encrypt().is_err());
    }
}
