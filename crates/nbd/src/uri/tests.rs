use super::*;

fn parse(text: &str) -> Uri {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn tcp(host: &str, port: u16) -> Transport {
    Transport::Tcp {
        host: host.into(),
        port,
    }
}

#[test]
fn transports() {
    let table = [
        ("nbd://localhost", tcp("localhost", 10809)),
        ("nbd://", tcp("localhost", 10809)),
        ("NBD:///x", tcp("localhost", 10809)),
        ("nbd://example.com:1234/", tcp("example.com", 1234)),
        ("nbd://[::1]:99/", tcp("::1", 99)),
        ("nbd://[::1]", tcp("::1", 10809)),
        ("nbd://10.0.0.1?nbd-port=5", tcp("10.0.0.1", 5)),
        (
            "nbd+unix:///?socket=/tmp/s",
            Transport::Unix {
                path: "/tmp/s".into(),
            },
        ),
        (
            "nbd+vsock://",
            Transport::Vsock {
                cid: 2,
                port: 10809,
            },
        ),
        (
            "nbd+vsock://3:4294967295/",
            Transport::Vsock {
                cid: 3,
                port: u32::MAX,
            },
        ),
        (
            "nbd+ssh://me@host:2222/?socket=/s&compress",
            Transport::Ssh {
                user: Some("me".into()),
                host: "host".into(),
                port: Some(2222),
                to: Remote::Unix("/s".into()),
                compress: true,
            },
        ),
        (
            "nbd+ssh://host/disk?nbd-port=7",
            Transport::Ssh {
                user: None,
                host: "host".into(),
                port: None,
                to: Remote::Port(7),
                compress: false,
            },
        ),
    ];
    for (text, transport) in table {
        assert_eq!(parse(text).transport, transport, "{text}");
        assert_eq!(parse(text).tls, None, "{text}");
    }
}

#[test]
fn exports() {
    let table = [
        ("nbd://h", ""),
        ("nbd://h/", ""),
        ("nbd://h/a", "a"),
        ("nbd://h//a", "/a"),
        ("nbd://h/a/b", "a/b"),
        ("nbd://h/%2fa%C3%A9?x=/y", "/aé"),
        ("nbd+unix:///e?socket=s", "e"),
        ("nbd+unix:e?", ""),
    ];
    for (text, export) in &table[..7] {
        assert_eq!(parse(text).export, *export, "{text}");
    }
    assert!(table[7].0.parse::<Uri>().is_err());
}

#[test]
fn tls_is_what_the_scheme_says() {
    let uri = parse("nbds://alice@h/?tls-psk-file=/k&tls-verify-peer=false;tls-priority=NORMAL");
    let tls = TlsParts {
        username: Some("alice".into()),
        psk_file: Some("/k".into()),
        verify_peer: Some(false),
        priority: Some("NORMAL".into()),
        ..TlsParts::default()
    };
    assert_eq!(uri.tls, Some(tls));
    let uri = parse("nbds+unix://bob@/?socket=s&tls-username=eve&tls-hostname=n");
    let tls = uri.tls.expect("TLS");
    assert_eq!(tls.username.as_deref(), Some("eve"));
    assert_eq!(tls.hostname.as_deref(), Some("n"));
    // Users of SSH are not users of TLS.
    let uri = parse("nbds+ssh://me@h/");
    assert_eq!(uri.tls, Some(TlsParts::default()));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let table = [
        ("localhost", 1, "nbd://"),
        ("http://h", 1, "scheme"),
        ("nbd+://h", 1, "scheme"),
        ("nbd+tcp://h", 1, "scheme"),
        ("nbd://h:x", 9, "'x' is not a TCP port"),
        ("nbd://h:", 9, "'' is not a TCP port"),
        ("nbd://h:65536", 9, "'65536' is not"),
        ("nbd://h:+1", 9, "'+1' is not"),
        ("nbd://::1", 8, "brackets"),
        ("nbd://[::1", 7, "not closed"),
        ("nbd://[h]", 8, "IPv6"),
        ("nbd://[::1]x", 12, "only a port"),
        ("nbd://h/%4", 9, "hexadecimal"),
        ("nbd://h/a%zz", 10, "hexadecimal"),
        ("nbd://h/%00", 9, "NUL"),
        ("nbd://h/%ff", 9, "UTF-8"),
        ("nbd://h/a b", 10, "escaped"),
        ("nbd://h/a#b", 10, "escaped"),
        ("nbd://h/?socket=s", 17, "nbd+unix"),
        ("nbd+unix://h/?socket=s", 12, "no host"),
        ("nbd+unix:///", 12, "missing"),
        ("nbd+unix:///?socket=", 21, "a path"),
        ("nbd+vsock://host", 13, "context identifier"),
        ("nbd+ssh:///", 11, "log in"),
        ("nbd+ssh://-oProxyCommand=x/", 11, "log in"),
        ("nbd+ssh://%2doProxy@h/", 11, "user name"),
        ("nbd://h/?tls-psk-file=k", 10, "nbds"),
        ("nbds://h/?tls-verify-peer=maybe", 27, "neither"),
    ];
    for (text, at, why) in table {
        let error = text.parse::<Uri>().expect_err(text);
        assert!(error.why.contains(why), "{error}");
        assert_eq!(error.at, at, "{error}");
        assert!(error.to_string().contains(text));
    }
    let long = format!("nbd://h/{}", "a".repeat(4097));
    assert!(long.parse::<Uri>().is_err());
}

#[test]
fn the_canonical_form_says_the_same() {
    let table = [
        ("nbd://localhost:10809", "nbd://localhost/"),
        ("NBD://h:1/a%62%26", "nbd://h:1/ab%26"),
        ("nbd://[::1]:2", "nbd://[::1]:2/"),
        ("nbd://[fe80::1%25eth0]/", "nbd://[fe80::1%25eth0]/"),
        ("nbd://[::1%25]/", "nbd://%3A%3A1%25/"),
        ("nbd://a%3Ab%2Fc/", "nbd://a%3Ab%2Fc/"),
        ("nbds://a%2Fb@h", "nbds://a%2Fb@h/"),
        ("nbd+unix:///x?socket=/a%20b", "nbd+unix:///x?socket=/a%20b"),
        ("nbd+vsock://:5/", "nbd+vsock://2:5/"),
        (
            "nbds+ssh://u@h/e?nbd-port=1&compress=yes&tls-username=t&tls-certificates=/c",
            "nbds+ssh://u@h/e?nbd-port=1&compress=true&tls-username=t&tls-certificates=/c",
        ),
        (
            "nbds://u@h/?tls-psk-file=/k&x=y&tls-verify-peer=0",
            "nbds://u@h/?tls-psk-file=/k&tls-verify-peer=false",
        ),
    ];
    for (text, canonical) in table {
        let uri = parse(text);
        assert_eq!(uri.to_string(), canonical);
        assert_eq!(parse(canonical), uri);
    }
}

#[test]
fn what_is_meant_as_a_uri() {
    for word in ["nbd://", "NBDS+unix://x", "nbd+ssh://h", "nbd://:::"] {
        assert!(Uri::is_meant(word), "{word}");
    }
    for word in ["", "nbd:", "disk.img", "http://h", "nbdx://h", "nbd+foo://"] {
        assert!(!Uri::is_meant(word), "{word}");
    }
}
