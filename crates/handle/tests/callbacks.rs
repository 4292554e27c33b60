//! Callbacks: when they are called, what they can do, and when they are freed.

mod common;

use std::sync::Arc;

use common::*;
use handle::*;

#[test]
fn callbacks_are_called_and_freed_in_order() {
    let handle = ready();
    let log = Log::default();
    let (mid, done) = (
        Freed("chunk", log.clone()),
        Freed("completion", log.clone()),
    );
    let chunk = move |bytes: &mut [u8], offset, kind, error: &mut i32| {
        let line = format!("chunk {} {offset} {kind} {error}", bytes.len());
        mid.1.lock().unwrap().push(line);
        0
    };
    let completion = move |error: &mut i32| {
        done.1.lock().unwrap().push(format!("completed {error}"));
        1
    };
    handle
        .aio_pread_structured(
            vec![0; 512],
            512,
            Box::new(chunk),
            Some(Box::new(completion)),
            0,
        )
        .unwrap();
    while handle.aio_in_flight().unwrap() != 0 {
        handle.poll(-1).unwrap();
    }
    assert_eq!(
        lines(&log),
        [
            "chunk 512 512 1 0",
            "completed 0",
            "free chunk",
            "free completion"
        ]
    );
    // It was retired by its callback.
    assert_eq!(handle.aio_peek_command_completed().unwrap_err().errno(), 22);
}

#[test]
fn callbacks_are_freed_if_the_call_fails() {
    let handle = Handle::new().unwrap();
    let log = Log::default();
    let (mid, done) = (
        Freed("chunk", log.clone()),
        Freed("completion", log.clone()),
    );
    let chunk = move |_: &mut [u8], _, _, _: &mut i32| {
        mid.1.lock().unwrap().push("called".into());
        0
    };
    let completion = move |_: &mut i32| {
        done.1.lock().unwrap().push("called".into());
        1
    };
    let call = handle.aio_pread_structured(
        vec![0; 512],
        0,
        Box::new(chunk),
        Some(Box::new(completion)),
        0,
    );
    assert!(call.is_err());
    assert_eq!(lines(&log), ["free chunk", "free completion"]);
}

#[test]
fn dropped_with_commands_in_flight_they_hear_of_it() {
    let handle = connected(|peer| {
        peer.enter(SIZE, ALL)?;
        peer.rest()
    });
    let log = Log::default();
    let done = Freed("completion", log.clone());
    let completion = move |error: &mut i32| {
        done.1.lock().unwrap().push(format!("called with {error}"));
        1
    };
    handle.aio_flush(Some(Box::new(completion)), 0).unwrap();
    drop(handle);
    assert_eq!(lines(&log), ["called with 107", "free completion"]);
}

#[test]
fn callbacks_can_make_a_command_fail() {
    let handle = ready();
    let chunk = |set: i32, answer: i32| {
        Box::new(move |_: &mut [u8], _, _, error: &mut i32| {
            *error = set;
            answer
        })
    };
    let read =
        |set, answer| message(handle.pread_structured(vec![0; 512], 0, chunk(set, answer), 0));
    let failed = "nbd_pread_structured: read: command failed";
    assert_eq!(
        read(33, -1),
        format!("{failed}: Numerical argument out of domain")
    );
    assert_eq!(read(0, -1), format!("{failed}: Protocol error"));
    assert_eq!(read(33, 0), "no error", "without -1 it does not count");
    let completion = |set: i32, answer: i32| {
        let completion = move |error: &mut i32| {
            *error = set;
            answer
        };
        let cookie = handle.aio_flush(Some(Box::new(completion)), 0).unwrap();
        while handle.aio_in_flight().unwrap() != 0 {
            handle.poll(-1).unwrap();
        }
        message(handle.aio_command_completed(cookie))
    };
    let said = completion(33, -1);
    let failed = "nbd_aio_command_completed: flush: command failed";
    assert_eq!(said, format!("{failed}: Numerical argument out of domain"));
    assert_eq!(completion(0, -1), "no error");
    assert_eq!(completion(33, 0), "no error");
}

#[test]
fn a_handle_cannot_be_called_by_its_own_callbacks() {
    let handle = Arc::new(ready());
    let inside = handle.clone();
    let log = Log::default();
    let said = log.clone();
    let completion = move |_: &mut i32| {
        said.lock().unwrap().push(message(inside.flush(0)));
        said.lock().unwrap().push(message(inside.get_size()));
        // These need no lock.
        assert!(!inside.aio_is_dead() && inside.get_debug() == inside.get_debug());
        assert!(inside.get_strict_mode() == STRICT_MASK);
        1
    };
    handle.aio_flush(Some(Box::new(completion)), 0).unwrap();
    while handle.aio_in_flight().unwrap() != 0 {
        handle.poll(-1).unwrap();
    }
    for line in lines(&log) {
        assert!(
            line.contains("a callback cannot call functions on its own handle"),
            "{line}"
        );
    }
}

#[test]
fn chunks_errors_and_holes_are_told_as_they_come() {
    let handle = connected(|peer| {
        peer.enter(SIZE, ALL)?;
        let asked = peer.request()?;
        assert_eq!(asked.flags, 4);
        let cookie = asked.cookie;
        let hole = [&0u64.to_be_bytes()[..], &256u32.to_be_bytes()].concat();
        let error = [b"\0\0\0\x05\0\x02no".as_slice(), &300u64.to_be_bytes()].concat();
        peer.send(&chunk(0, 2, cookie, &hole))?;
        peer.send(&chunk(0, 0x8002, cookie, &error))?;
        peer.send(&data_chunk(1, cookie, 400, &[7; 112]))?;
        peer.rest()
    });
    let log = Log::default();
    let lines_of = log.clone();
    let chunk = move |bytes: &mut [u8], offset, kind, error: &mut i32| {
        let line = format!("{} {offset} {kind} {error}", bytes.len());
        lines_of.lock().unwrap().push(line);
        0
    };
    // The flag that two answers would break is what the server does not obey by itself.
    let said = message(handle.pread_structured(vec![1; 512], 0, Box::new(chunk), CMD_FLAG_DF));
    assert!(said.contains("fragmented"), "{said}");
    assert_eq!(lines(&log), ["256 0 2 0", "0 300 3 5"]);
}

#[test]
fn extents_with_64_bits_for_those_who_have_32() {
    let handle = Handle::new().unwrap();
    handle.add_meta_context("base:allocation").unwrap();
    connect(&handle, |peer| {
        peer.greet()?;
        loop {
            let (option, _) = peer.option()?;
            match option {
                11 => peer.send(&reply(11, ACK, &[]))?,
                10 => {
                    let context = [&[0, 0, 0, 7][..], b"base:allocation"].concat();
                    peer.send(&reply(10, 4, &context))?;
                    peer.send(&reply(10, ACK, &[]))?;
                }
                7 => break,
                other => panic!("option {other}"),
            }
        }
        peer.send(&export_info(7, 1 << 40, ALL))?;
        peer.send(&reply(7, ACK, &[]))?;
        for extents in [
            [(512u64, 3u64), (1 << 33, 0), (512, 1)],
            [(512, 1), (512, 1 << 40), (512, 1)],
        ] {
            let head: [u8; 32] = peer.receive()?;
            assert_eq!(head[24..], (1u64 << 35).to_be_bytes());
            let mut data = b"\0\0\0\x07\0\0\0\x03".to_vec();
            for (length, flags) in extents {
                data.extend_from_slice(&length.to_be_bytes());
                data.extend_from_slice(&flags.to_be_bytes());
            }
            let mut answer = b"\x6e\x8a\x27\x8c\0\x01\0\x06".to_vec();
            answer.extend_from_slice(&head[8..24]);
            answer.extend_from_slice(&(data.len() as u64).to_be_bytes());
            peer.send(&[answer, data].concat())?;
        }
        peer.rest()
    })
    .unwrap();
    assert!(handle.get_extended_headers_negotiated().unwrap());
    assert!(handle.get_structured_replies_negotiated().unwrap());
    let log = Log::default();
    let extent = |log: Log| {
        Box::new(
            move |name: &str, offset, pairs: &mut [u32], error: &mut i32| {
                log.lock()
                    .unwrap()
                    .push(format!("{name} {offset} {pairs:?} {error}"));
                0
            },
        )
    };
    handle
        .block_status(1 << 35, 0, extent(log.clone()), 0)
        .unwrap();
    assert_eq!(lines(&log), ["base:allocation 0 [512, 3, 4227858432, 0] 0"]);
    let said = message(handle.block_status(1 << 35, 0, extent(log.clone()), 0));
    assert!(
        said.contains("block-status: command failed: Value too large"),
        "{said}"
    );
    assert_eq!(lines(&log), ["base:allocation 0 [512, 1] 75"]);
}

#[test]
fn debugging() {
    let handle = Handle::new().unwrap();
    let log = Log::default();
    let lines_of = log.clone();
    let debug = move |context: &str, text: &str| {
        lines_of.lock().unwrap().push(format!("{context}|{text}"));
        0
    };
    handle.set_debug(true).unwrap();
    handle.set_debug_callback(Box::new(debug)).unwrap();
    let _ = handle.flush(0);
    handle.clear_debug_callback().unwrap();
    let lines = lines(&log);
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("nbd_flush|enter: ")),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("nbd_flush|leave: error=\"nbd_flush: invalid")),
        "{lines:?}"
    );
}
