//! What the manual pages promise, one test for each promise.

mod common;

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use common::*;
use handle::*;

#[test]
fn a_new_handle() {
    let handle = Handle::new().unwrap();
    assert!(handle.aio_is_created() && !handle.aio_is_ready());
    assert!(handle.get_handle_name().unwrap().starts_with("nbd"));
    assert_eq!(handle.get_strict_mode(), STRICT_MASK);
    assert_eq!(handle.get_handshake_flags(), HANDSHAKE_FLAG_MASK);
    assert_eq!(handle.get_tls(), TLS_DISABLE);
    assert!(handle.get_tls_verify_peer() && handle.get_pread_initialize());
    assert_eq!(handle.get_tls_priority().unwrap(), "NORMAL");
    assert_eq!(handle.aio_get_direction(), 0);
    assert_eq!(
        handle.connection_state().to_str().unwrap(),
        "START: Handle after being initially created"
    );
    let table = [
        (
            message(handle.pread(vec![0; 1], 0, 0)),
            "nbd_pread: invalid state: START: the handle must be connected with the server: \
             Transport endpoint is not connected",
        ),
        (
            message(handle.poll(0)),
            "nbd_poll: nothing to poll for in state START: Invalid argument",
        ),
        (
            message(handle.aio_notify_read()),
            "nbd_aio_notify_read: external event 0 is invalid in state START: Invalid argument",
        ),
        (
            message(handle.aio_notify_write()),
            "nbd_aio_notify_write: external event 1 is invalid in state START: Invalid argument",
        ),
        (
            message(handle.aio_get_fd()),
            "nbd_aio_get_fd: connection is not in a connected state: Invalid argument",
        ),
        (
            message(handle.get_subprocess_pid()),
            "nbd_get_subprocess_pid: no subprocess exists: No such process",
        ),
        (
            message(handle.set_tls(5)),
            "nbd_set_tls: tls: invalid value for parameter: 5: Invalid argument",
        ),
        (
            message(handle.set_strict_mode(0xffff)),
            "nbd_set_strict_mode: flags: invalid value for flag: 0xffff: Invalid argument",
        ),
        (
            message(handle.set_export_name(&"x".repeat(4097))),
            "nbd_set_export_name: export name too long for NBD protocol: File name too long",
        ),
        (
            message(handle.get_meta_context(0)),
            "nbd_get_meta_context: meta context request out of range: Invalid argument",
        ),
        (
            message(handle.aio_command_completed(0)),
            "nbd_aio_command_completed: invalid aio cookie 0: Invalid argument",
        ),
        (
            message(handle.aio_peek_command_completed()),
            "nbd_aio_peek_command_completed: no commands are in flight: Invalid argument",
        ),
        (
            message(handle.connect_command(&[])),
            "nbd_connect_command: missing command name in argv list: Invalid argument",
        ),
    ];
    for (said, expected) in table {
        assert_eq!(said, expected);
    }
    assert!(handle.aio_is_created(), "nothing of that has changed it");
}

#[test]
fn settings_can_be_changed_only_where_it_is_permitted() {
    let handle = ready();
    assert!(message(handle.set_tls(0)).contains("the handle must be newly created"));
    assert!(message(handle.set_opt_mode(true)).contains("newly created"));
    assert!(message(handle.add_meta_context("x")).contains("newly created, or negotiating"));
    assert!(message(handle.opt_go()).contains("the handle must be negotiating"));
    assert!(message(handle.connect_uri("nbd://x")).contains("newly created"));
    handle.set_strict_mode(0).unwrap();
    handle.set_pread_initialize(false).unwrap();
    handle.set_handle_name("mine").unwrap();
    assert_eq!(handle.get_handle_name().unwrap(), "mine");
}

#[test]
fn what_the_server_said() {
    let handle = ready();
    assert_eq!(handle.get_size().unwrap(), SIZE as i64);
    assert_eq!(handle.get_protocol().unwrap(), c"newstyle-fixed");
    assert!(handle.can_flush().unwrap() && handle.can_df().unwrap());
    assert!(!handle.is_read_only().unwrap());
    assert!(!handle.can_block_status_payload().unwrap());
    assert!(handle.get_structured_replies_negotiated().unwrap());
    assert!(!handle.get_extended_headers_negotiated().unwrap());
    assert!(!handle.get_tls_negotiated().unwrap());
    let sizes = [SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM, SIZE_PAYLOAD];
    let sizes = sizes.map(|kind| handle.get_block_size(kind).unwrap());
    assert_eq!(sizes, [0, 0, 0, 32 << 20]);
    assert!(message(handle.get_block_size(4)).contains("size_type: invalid value"));
    assert_eq!(handle.get_canonical_export_name().unwrap_err().errno(), 95);
    assert!(!handle.can_meta_context("base:allocation").unwrap());
    assert!(message(handle.get_uri()).contains("cannot construct a URI"));
    handle.shutdown(0).unwrap();
    // Still known, when all is over.
    assert_eq!(handle.get_size().unwrap(), SIZE as i64);
    assert!(handle.aio_is_closed());
    assert!(message(handle.flush(0)).contains("invalid state: CLOSED"));
}

#[test]
fn strict_mode_refuses_before_anything_is_sent() {
    let handle = connected(|peer| {
        peer.enter(SIZE, 1 | 1 << 5 | 1 << 6)?;
        peer.rest()
    });
    let sent = handle.stats_bytes_sent();
    let nothing = || Box::new(|_: &str, _, _: &mut [Extent], _: &mut i32| 0);
    let chunk = || Box::new(|_: &mut [u8], _, _, _: &mut i32| 0);
    let table = [
        (
            message(handle.pread(vec![0; 512], SIZE, 0)),
            "request out of bounds: Invalid argument",
        ),
        (
            message(handle.pread(vec![0; 2], u64::MAX, 0)),
            "request out of bounds",
        ),
        (
            message(handle.pwrite(vec![0; 512], SIZE, 0)),
            "request out of bounds: No space left",
        ),
        (message(handle.pread(vec![], 0, 0)), "count cannot be 0"),
        (
            message(handle.pread(vec![0; 1], 0, 1)),
            "flags: invalid value for flag: 0x1",
        ),
        (
            message(handle.pread(vec![0; 1], 0, 0x10000)),
            "flags: invalid value for flag: 0x10000",
        ),
        (
            message(handle.pwrite(vec![0; 1], 0, 1)),
            "server does not support the FUA flag",
        ),
        (
            message(handle.zero(1, 0, 16)),
            "server does not support the fast zero flag",
        ),
        (
            message(handle.pread_structured(vec![0; 1], 0, chunk(), 4)),
            "support the DF flag",
        ),
        (
            message(handle.flush(0)),
            "server does not support flush operations",
        ),
        (
            message(handle.cache(1, 0, 0)),
            "server does not support cache operations",
        ),
        (
            message(handle.block_status_64(1, 0, nothing(), 0)),
            "did not negotiate any metadata",
        ),
        (
            message(handle.block_status_filter(1, 0, &[], nothing(), 0)),
            "server does not support extended headers: Operation not supported",
        ),
    ];
    for (said, expected) in table {
        assert!(said.contains(expected), "{said}, not {expected}");
    }
    handle
        .set_strict_mode(STRICT_MASK & !STRICT_BOUNDS)
        .unwrap();
    assert!(message(handle.trim(5 << 30, 0, 0)).contains(
        "request too large: maximum request size is 4294967295: Numerical result out of range"
    ));
    assert!(message(handle.pread(vec![0; (64 << 20) + 1], 0, 0)).contains("67108864"));
    assert!(message(handle.pwrite(vec![0; 33 << 20], 0, 0)).contains("33554432"));
    assert_eq!(handle.stats_bytes_sent(), sent);
}

#[test]
fn without_strict_mode_the_server_decides() {
    let handle = connected(|peer| {
        peer.enter(SIZE, 1 | 2)?;
        let asked = peer.request()?;
        assert_eq!(
            (asked.flags, asked.offset, asked.length),
            (0xff, SIZE * 2, 0)
        );
        peer.send(&chunk(1, 0x8001, asked.cookie, b"\0\0\0\x16\0\x02no"))?;
        let asked = peer.request()?;
        assert_eq!(asked.command, 1);
        peer.payload(asked.length)?;
        peer.send(&simple(1, asked.cookie))?;
        peer.rest()
    });
    handle.set_strict_mode(0).unwrap();
    let said = message(handle.pread(vec![], SIZE * 2, 0xff));
    assert_eq!(said, "nbd_pread: read: command failed: Invalid argument");
    let said = message(handle.pwrite(vec![7; 10], 0, 0));
    assert_eq!(
        said,
        "nbd_pwrite: write: command failed: Operation not permitted"
    );
    assert!(
        handle.aio_is_ready(),
        "a command that fails is no harm to the connection"
    );
}

#[test]
fn unaligned_requests_are_refused_but_at_the_end() {
    let handle = connected(|peer| {
        peer.greet()?;
        loop {
            let (option, _) = peer.option()?;
            if option != 7 {
                peer.send(&reply(option, UNSUP, &[]))?;
                continue;
            }
            peer.send(&export_info(7, 1000, 1))?;
            peer.send(&reply(7, REP_INFO, b"\0\x03\0\0\x02\0\0\0\x10\0\0\0\x20\0"))?;
            peer.send(&reply(7, ACK, &[]))?;
            break;
        }
        let asked = peer.request()?;
        peer.send(&[simple(0, asked.cookie), vec![5; 488]].concat())?;
        peer.rest()
    });
    assert_eq!(handle.get_block_size(SIZE_MINIMUM).unwrap(), 512);
    assert_eq!(handle.get_block_size(SIZE_PAYLOAD).unwrap(), 1 << 20);
    assert!(message(handle.pread(vec![0; 100], 0, 0)).contains("request is unaligned"));
    assert!(message(handle.pread(vec![0; 512], 3, 0)).contains("request is unaligned"));
    assert_eq!(handle.pread(vec![0; 488], 512, 0).unwrap(), vec![5; 488]);
}

#[test]
fn cookies_and_completions() {
    let handle = ready();
    let first = handle.aio_flush(None, 0).unwrap();
    let second = handle.aio_pread(vec![0; 512], 0, None, 0).unwrap();
    assert!(first >= 1 && second != first);
    assert_eq!(handle.aio_command_completed(9999), Ok(false));
    while handle.aio_in_flight().unwrap() != 0 {
        assert!(handle.poll(-1).unwrap());
    }
    assert_eq!(handle.aio_peek_command_completed(), Ok(first));
    assert_eq!(handle.aio_command_completed(first), Ok(true));
    assert_eq!(
        handle.aio_command_completed(first),
        Ok(false),
        "it was retired"
    );
    assert_eq!(handle.aio_peek_command_completed(), Ok(second));
    assert_eq!(handle.aio_command_completed(second), Ok(true));
}

#[test]
fn buffers_are_cleared_unless_that_is_switched_off() {
    let handle = Handle::new().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    struct Buffer(Vec<u8>, Arc<Mutex<Vec<u8>>>);
    impl ReadBuffer for Buffer {
        fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }
    impl Drop for Buffer {
        fn drop(&mut self) {
            *self.1.lock().unwrap() = std::mem::take(&mut self.0);
        }
    }
    // Even in the wrong state.
    assert!(
        handle
            .pread(Buffer(vec![9; 4], seen.clone()), 0, 0)
            .is_err()
    );
    assert_eq!(*seen.lock().unwrap(), [0; 4]);
    handle.set_pread_initialize(false).unwrap();
    assert!(
        handle
            .pread(Buffer(vec![9; 4], seen.clone()), 0, 0)
            .is_err()
    );
    assert_eq!(*seen.lock().unwrap(), [9; 4]);
}

#[test]
fn a_server_that_goes_away() {
    let handle = connected(|peer| {
        peer.enter(SIZE, ALL)?;
        peer.request()?;
        peer.request().map(drop)
    });
    let errors = Arc::new(AtomicU32::new(0));
    let seen = errors.clone();
    let completion = move |error: &mut i32| {
        assert_eq!(*error, 107);
        seen.fetch_add(1, SeqCst);
        0
    };
    let cookie = handle.aio_flush(Some(Box::new(completion)), 0).unwrap();
    let said = message(handle.pread(vec![0; 512], 0, 0));
    assert_eq!(
        said,
        "nbd_pread: read: command failed: Transport endpoint is not connected"
    );
    assert!(handle.aio_is_closed());
    assert_eq!(errors.load(SeqCst), 1, "exactly once");
    assert_eq!(handle.aio_in_flight(), Ok(0));
    assert!(message(handle.aio_command_completed(cookie)).contains("flush: command failed"));
}

#[test]
fn shutdown_with_commands_that_were_not_sent() {
    for abandon in [true, false] {
        let handle = connected(move |peer| {
            peer.enter(SIZE, ALL)?;
            // Nothing is read until the pipe is full.
            std::thread::sleep(std::time::Duration::from_millis(100));
            obedient(peer)
        });
        let results = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..20 {
            let results = results.clone();
            let completion = move |error: &mut i32| {
                results.lock().unwrap().push(*error);
                1
            };
            handle
                .aio_pwrite(vec![1; 1 << 20], 0, Some(Box::new(completion)), 0)
                .unwrap();
        }
        assert!(handle.aio_is_processing(), "so much does not fit a socket");
        assert_eq!(handle.aio_get_direction(), AIO_DIRECTION_BOTH);
        let flags = if abandon { SHUTDOWN_ABANDON_PENDING } else { 0 };
        handle.shutdown(flags).unwrap();
        let results = results.lock().unwrap();
        assert_eq!(results.len(), 20);
        let lost = results.iter().filter(|error| **error == 107).count();
        assert_eq!(lost != 0, abandon, "{lost} were abandoned");
        assert!(lost < 20, "what was begun is finished");
    }
}

#[test]
fn after_disconnect_nothing_more_can_be_asked() {
    let handle = ready();
    assert!(message(handle.aio_disconnect(1)).contains("flags: invalid value"));
    handle.aio_disconnect(0).unwrap();
    assert!(message(handle.aio_flush(None, 0)).contains("NBD_CMD_DISC"));
    while !handle.aio_is_closed() {
        handle.poll(-1).unwrap();
    }
}

#[test]
fn statistics_count_what_the_protocol_says() {
    let handle = ready();
    let before = (handle.stats_bytes_sent(), handle.stats_bytes_received());
    let chunks = (handle.stats_chunks_sent(), handle.stats_chunks_received());
    handle.pread(vec![0; 512], 0, 0).unwrap();
    handle.pwrite(vec![0; 100], 0, 0).unwrap();
    assert_eq!(handle.stats_bytes_sent() - before.0, 28 + 28 + 100);
    assert_eq!(handle.stats_bytes_received() - before.1, 20 + 8 + 512 + 16);
    assert_eq!(handle.stats_chunks_sent() - chunks.0, 2);
    assert_eq!(handle.stats_chunks_received() - chunks.1, 2);
}

#[test]
fn poll2_wakes_for_another_descriptor() {
    let handle = ready();
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(handle.poll2(one.as_fd(), 1), Ok(false));
    io::Write::write_all(&mut &other, b"x").unwrap();
    assert_eq!(handle.poll2(one.as_fd(), -1), Ok(true));
    assert_eq!(handle.poll(0), Ok(false));
}

#[test]
fn a_socket_that_cannot_be_used_is_given_back() {
    let handle = ready();
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let refused = handle.connect_socket(one.into()).unwrap_err();
    assert!(refused.socket.is_some());
    assert!(refused.error.to_string().contains("newly created"));
}

#[test]
fn oldstyle_servers_need_no_handshake() {
    let handle = Handle::new().unwrap();
    handle.set_opt_mode(true).unwrap();
    connect(&handle, |peer| {
        let mut greeting = b"NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53".to_vec();
        greeting.extend_from_slice(&SIZE.to_be_bytes());
        greeting.extend_from_slice(&[0, 0, 0, 1 | 1 << 2]);
        greeting.resize(152, 0);
        peer.send(&greeting)?;
        let asked = peer.request()?;
        peer.send(&[simple(0, asked.cookie), vec![3; 16]].concat())?;
        peer.rest()
    })
    .unwrap();
    assert!(handle.aio_is_ready(), "opt mode has no effect");
    assert_eq!(handle.get_protocol().unwrap(), c"oldstyle");
    assert!(handle.can_flush().unwrap() && !handle.can_df().unwrap());
    assert!(!handle.can_meta_context("base:allocation").unwrap());
    assert_eq!(handle.pread(vec![0; 16], 0, 0).unwrap(), [3; 16]);
}

#[test]
fn an_answer_that_comes_before_the_payload_was_sent() {
    // The caller's memory is still being sent: the command is not over before that is done.
    let handle = connected(|peer| {
        peer.enter(SIZE, ALL)?;
        peer.request()?;
        peer.send(&simple(1, 1))?;
        std::thread::sleep(std::time::Duration::from_millis(50));
        peer.payload(SIZE)?;
        peer.rest()
    });
    let cookie = handle
        .aio_pwrite(vec![0; SIZE as usize], 0, None, 0)
        .unwrap();
    assert_eq!(handle.aio_command_completed(cookie), Ok(false));
    // The reply alone is there at once.
    assert!(handle.poll(-1).unwrap());
    while handle.aio_is_processing() {
        assert_eq!(handle.aio_in_flight(), Ok(1));
        handle.poll(-1).unwrap();
    }
    let said = message(handle.aio_command_completed(cookie));
    assert!(
        said.contains("write: command failed: Operation not permitted"),
        "{said}"
    );
}
