//! Servers that lie: each ends its own handle, with an error that says how.

mod common;

use std::io;

use common::*;
use handle::Handle;

/// What a server answers to a request.
type Answer = fn(Asked) -> Vec<u8>;

/// How a handle dies by a server.
fn dies(server: impl FnOnce(&mut Peer) -> io::Result<()> + Send + 'static) -> String {
    let handle = Handle::new().unwrap();
    let error = connect(&handle, server).unwrap_err();
    assert!(handle.aio_is_dead(), "{error}");
    error.to_string()
}

#[test]
fn greetings() {
    let said = dies(|peer| peer.send(&[b'x'; 18]));
    assert!(said.contains("does not speak NBD"), "{said}");
    let said = dies(|peer| peer.send(b"NBDMAGICIHAVENOT\0\0"));
    assert!(said.contains("does not speak NBD"), "{said}");
    for bytes in [&b""[..], b"NBDMAGIC", b"NBDMAGICIHAVEOPT\0"] {
        let said = dies(move |peer| peer.send(bytes));
        let disconnected = "recv: server disconnected unexpectedly";
        // A socket that is closed with bytes unread is reset.
        assert!(
            said.contains(disconnected) || said.contains("reset"),
            "{said}"
        );
    }
}

#[test]
fn options() {
    let answer = |bytes: Vec<u8>| {
        move |peer: &mut Peer| {
            peer.greet()?;
            peer.option()?;
            peer.send(&bytes)?;
            peer.rest()
        }
    };
    let mut magic = reply(11, ACK, &[]);
    magic[0] = 9;
    let mut long = reply(11, ACK, &[]);
    long[16] = 7;
    let lies = [
        (magic, "bad magic"),
        (long, "malformed"),
        (reply(8, ACK, &[]), "was not expected"),
        (reply(11, 77, &[]), "was not expected"),
        (reply(11, ACK, b"x"), "malformed"),
    ];
    for (bytes, expected) in lies {
        let said = dies(answer(bytes));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn exports() {
    let said = dies(|peer| {
        peer.enter(SIZE, 0)?;
        peer.rest()
    });
    assert!(said.contains("invalid eflags == 0 from server"), "{said}");
    let said = dies(|peer| {
        peer.greet()?;
        loop {
            match peer.option()?.0 {
                7 => break,
                other => peer.send(&reply(other, UNSUP, &[]))?,
            }
        }
        peer.send(&reply(7, ACK, &[]))?;
        peer.rest()
    });
    assert!(said.contains("did not describe the export"), "{said}");
    // A size that C cannot tell is known all the same.
    let handle = connected(|peer| {
        peer.enter(1 << 63, 1)?;
        peer.rest()
    });
    let error = handle.get_size().unwrap_err();
    assert_eq!(error.errno(), 75);
    assert!(error.to_string().contains("9223372036854775808"), "{error}");
}

/// What a server answers to one read of 512 bytes at 4096, and how the handle dies.
fn read_dies(answer: Answer) -> String {
    let handle = connected(move |peer| {
        peer.enter(SIZE, 1)?;
        let asked = peer.request()?;
        peer.send(&answer(asked))?;
        peer.rest()
    });
    let error = handle.pread(vec![0; 512], 4096, 0).unwrap_err();
    assert!(handle.aio_is_dead(), "{error}");
    // Nothing is left of the command, and nothing more can be asked.
    assert_eq!(handle.aio_in_flight().unwrap(), 0);
    assert!(
        handle
            .pread(vec![0; 512], 0, 0)
            .unwrap_err()
            .to_string()
            .contains("DEAD")
    );
    error.to_string()
}

#[test]
fn reads() {
    let lies: [(Answer, &str); 12] = [
        (|_| b"1234567890123456".to_vec(), "bad magic 0x31323334"),
        (
            |asked| chunk(1, 0, asked.cookie + 9, &[]),
            "no request in flight",
        ),
        (|asked| simple(0, asked.cookie), "simple reply to a read"),
        (
            |asked| data_chunk(1, asked.cookie, 0, &[1; 512]),
            "outside of the range",
        ),
        (
            |asked| data_chunk(1, asked.cookie, 4096, &[1; 513]),
            "outside of the range",
        ),
        (
            |asked| data_chunk(1, asked.cookie, u64::MAX, &[1; 2]),
            "outside of the range",
        ),
        (
            |asked| data_chunk(1, asked.cookie, 4096, &[1; 511]),
            "1 bytes short",
        ),
        (|asked| chunk(1, 0, asked.cookie, &[]), "512 bytes short"),
        (
            |asked| chunk(0, 0, asked.cookie, &[]),
            "malformed error or end",
        ),
        (
            |asked| chunk(1, 99, asked.cookie, b"abc"),
            "type 0x63 was not expected",
        ),
        (
            |asked| chunk(1, 5, asked.cookie, &[0; 12]),
            "was not expected",
        ),
        (
            |asked| {
                let hole = [&4096u64.to_be_bytes()[..], &9999u32.to_be_bytes()].concat();
                chunk(1, 2, asked.cookie, &hole)
            },
            "outside of the range",
        ),
    ];
    for (answer, expected) in lies {
        let said = read_dies(answer);
        assert!(said.starts_with("nbd_pread: "), "{said}");
        assert!(said.contains(expected), "{said}, not {expected}");
    }
}

#[test]
fn a_second_answer() {
    let handle = connected(|peer| {
        peer.enter(SIZE, 1)?;
        let asked = peer.request()?;
        let answer = data_chunk(1, asked.cookie, 0, &[1; 512]);
        peer.send(&[&answer[..], &answer].concat())?;
        peer.rest()
    });
    // Both come at once; the first is good.
    let cookie = handle.aio_pread(vec![0; 512], 0, None, 0).unwrap();
    let error = loop {
        if let Err(error) = handle.poll(-1) {
            break error;
        }
    };
    assert!(
        error.to_string().contains("no request in flight"),
        "{error}"
    );
    assert_eq!(handle.aio_command_completed(cookie), Ok(true));
    assert!(handle.aio_is_dead());
}

#[test]
fn an_answer_before_the_question() {
    let handle = Handle::new().unwrap();
    let connected = connect(&handle, |peer| {
        peer.enter(SIZE, 1)?;
        peer.send(&simple(0, 1))?;
        peer.rest()
    });
    // It may come so early that there never is a connection.
    let error = connected.map_or_else(Some, |()| None).unwrap_or_else(|| {
        loop {
            if let Err(error) = handle.poll(-1) {
                break error;
            }
        }
    });
    assert!(
        error.to_string().contains("no request in flight"),
        "{error}"
    );
}

fn status(answer: Answer) -> String {
    let handle = Handle::new().unwrap();
    handle.add_meta_context("base:allocation").unwrap();
    connect(&handle, move |peer| {
        peer.enter(SIZE, 1)?;
        let asked = peer.request()?;
        peer.send(&answer(asked))?;
        peer.rest()
    })
    .unwrap();
    let extent = |_: &str, _, _: &mut [handle::Extent], _: &mut i32| 0;
    let error = handle
        .block_status_64(SIZE, 0, Box::new(extent), 0)
        .unwrap_err();
    assert!(handle.aio_is_dead(), "{error}");
    error.to_string()
}

#[test]
fn extents() {
    /// A block status chunk with these numbers.
    fn of(asked: Asked, numbers: &[u32]) -> Vec<u8> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).collect();
        chunk(1, 5, asked.cookie, &bytes)
    }
    let lies: [(Answer, &str); 6] = [
        (
            |asked| of(asked, &[8, 512, 0]),
            "context 8, which was not selected",
        ),
        (|asked| of(asked, &[7]), "malformed block status"),
        (|asked| of(asked, &[7, 0, 0]), "malformed block status"),
        (|asked| of(asked, &[7, 512]), "bad length"),
        (
            |asked| chunk(1, 0, asked.cookie, &[]),
            "malformed block status",
        ),
        (
            |asked| {
                let mut twice = of(asked, &[7, 512, 0]);
                twice[5] = 0;
                [twice, of(asked, &[7, 512, 0])].concat()
            },
            "malformed block status",
        ),
    ];
    for (answer, expected) in lies {
        let said = status(answer);
        assert!(said.contains(expected), "{said}, not {expected}");
    }
}

#[test]
fn plain_text_behind_the_answer_to_starttls() {
    // CVE-2021-3716 and its kin: somebody in between adds bytes.
    let handle = Handle::new().unwrap();
    if !handle.supports_tls() {
        eprintln!("SKIP: built without TLS");
        return;
    }
    handle.set_tls(handle::TLS_REQUIRE).unwrap();
    let error = connect(&handle, |peer| {
        peer.greet()?;
        let (option, _) = peer.option()?;
        assert_eq!(option, 5);
        let more = reply(11, ACK, &[]);
        peer.send(&[reply(5, ACK, &[]), more].concat())?;
        peer.rest()
    })
    .unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");
    assert!(handle.aio_is_dead());
}

#[test]
fn tls_that_is_required_is_never_done_without() {
    // CVE-2019-14842.
    let required = || {
        let handle = Handle::new().unwrap();
        handle.set_tls(handle::TLS_REQUIRE).ok().map(|()| handle)
    };
    let Some(handle) = required() else {
        eprintln!("SKIP: built without TLS");
        return;
    };
    let error = connect(&handle, |peer| peer.enter(SIZE, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nbd_connect_socket: handshake: server refused TLS, but handle TLS setting is 'require' \
         (2): Operation not supported"
    );
    let handle = required().unwrap();
    let error = connect(&handle, |peer| {
        peer.send(b"NBDMAGICIHAVEOPT\0\0")?;
        peer.rest()
    })
    .unwrap_err();
    assert!(error.to_string().contains("not fixed newstyle"), "{error}");
    let handle = required().unwrap();
    let error = connect(&handle, |peer| {
        let mut greeting = b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec();
        greeting.resize(152, 1);
        peer.send(&greeting)?;
        peer.rest()
    })
    .unwrap_err();
    assert!(error.to_string().contains("server is oldstyle"), "{error}");
}
