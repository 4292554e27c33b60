//! Options one by one.

mod common;

use std::{
    io,
    sync::{Arc, Mutex},
};

use common::*;
use handle::*;

/// A server with the exports `a` and `b`, and no default.
fn two_exports(peer: &mut Peer) -> io::Result<()> {
    peer.greet()?;
    loop {
        let (option, data) = peer.option()?;
        let name = data.get(4..).unwrap_or_default();
        let known = name.starts_with(b"a\0") || name.starts_with(b"b\0");
        match option {
            8 => peer.send(&reply(8, ACK, &[]))?,
            3 => {
                peer.send(&reply(3, 2, b"\0\0\0\x01athe first"))?;
                peer.send(&reply(3, 2, b"\0\0\0\x01b"))?;
                peer.send(&reply(3, ACK, &[]))?;
            }
            9 | 10 if known => {
                peer.send(&reply(option, 4, b"\0\0\0\x05base:allocation"))?;
                peer.send(&reply(option, ACK, &[]))?;
            }
            6 | 7 if known => {
                peer.send(&export_info(option, SIZE, 1))?;
                peer.send(&reply(option, REP_INFO, b"\0\x01canonical"))?;
                peer.send(&reply(option, ACK, &[]))?;
                if option == 7 {
                    return peer.rest();
                }
            }
            2 => return Ok(()),
            6 | 7 | 9 | 10 => peer.send(&reply(option, UNKNOWN, b"no such thing"))?,
            _ => peer.send(&reply(option, UNSUP, &[]))?,
        }
    }
}

fn negotiating(prepare: impl FnOnce(&Handle)) -> Handle {
    let handle = Handle::new().unwrap();
    handle.set_opt_mode(true).unwrap();
    prepare(&handle);
    connect(&handle, two_exports).unwrap();
    assert!(handle.aio_is_negotiating());
    assert_eq!(handle.aio_get_direction(), 0);
    handle
}

fn names() -> (Arc<Mutex<Vec<String>>>, ContextCallback) {
    let names = Arc::new(Mutex::new(Vec::new()));
    let to = names.clone();
    let callback = move |name: &str| {
        to.lock().unwrap().push(name.to_owned());
        0
    };
    (names, Box::new(callback))
}

#[test]
fn a_list_and_a_choice() {
    let handle = negotiating(|_| {});
    assert_eq!(handle.get_protocol().unwrap(), c"newstyle-fixed");
    assert!(handle.get_structured_replies_negotiated().unwrap());
    assert_eq!(
        handle.get_size().unwrap_err().to_string(),
        "nbd_get_size: server has not returned export size, you need to connect to the server \
         first: Invalid argument"
    );
    let found = Arc::new(Mutex::new(Vec::new()));
    let to = found.clone();
    let list = move |name: &str, description: &str| {
        to.lock().unwrap().push(format!("{name}:{description}"));
        0
    };
    assert_eq!(handle.opt_list(Box::new(list)), Ok(2));
    assert_eq!(*found.lock().unwrap(), ["a:the first", "b:"]);
    // What is refused leaves the handle where it was.
    let error = handle.opt_go().unwrap_err();
    assert_eq!(
        error.to_string(),
        "nbd_opt_go: the server has no export named '': no such thing: No such file or directory"
    );
    assert!(handle.aio_is_negotiating());
    handle.set_export_name("a").unwrap();
    handle.opt_info().unwrap();
    assert_eq!(handle.get_size().unwrap(), SIZE as i64);
    assert_eq!(handle.get_canonical_export_name().unwrap(), "canonical");
    // The same name keeps what is known, another one does not.
    handle.set_export_name("a").unwrap();
    assert!(handle.get_size().is_ok());
    handle.set_export_name("b").unwrap();
    assert!(handle.get_size().is_err());
    handle.opt_go().unwrap();
    assert!(handle.aio_is_ready());
    assert!(handle.opt_go().is_err());
}

#[test]
fn contexts() {
    let handle = negotiating(|handle| handle.set_export_name("a").unwrap());
    let base = "base:allocation";
    assert_eq!(
        handle.can_meta_context(base),
        Ok(false),
        "none was asked for"
    );
    let (listed, callback) = names();
    assert_eq!(handle.opt_list_meta_context(callback), Ok(1));
    assert_eq!(*listed.lock().unwrap(), [base]);
    assert_eq!(
        handle.can_meta_context(base),
        Ok(false),
        "a list selects nothing"
    );
    handle.add_meta_context(base).unwrap();
    assert_eq!(handle.get_nr_meta_contexts(), Ok(1));
    let error = handle.can_meta_context(base).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("need a successful server meta context request first")
    );
    let (_, callback) = names();
    assert_eq!(handle.opt_set_meta_context(callback), Ok(1));
    assert_eq!(handle.can_meta_context(base), Ok(true));
    handle.set_export_name("x").unwrap();
    let (_, callback) = names();
    let error = handle
        .opt_set_meta_context_queries(&["a:b".into()], callback)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "nbd_opt_set_meta_context_queries: server replied with error to meta context request: \
         Operation not supported"
    );
    assert!(handle.can_meta_context(base).is_err());
    // The choice of the export asks for them by itself.
    handle.set_export_name("b").unwrap();
    handle.opt_go().unwrap();
    assert_eq!(handle.can_meta_context(base), Ok(true));
}

#[test]
fn the_choice_does_not_ask_for_contexts_if_that_is_switched_off() {
    let handle = negotiating(|handle| {
        handle.set_export_name("a").unwrap();
        handle.add_meta_context("base:allocation").unwrap();
        handle.set_request_meta_context(false).unwrap();
    });
    let (_, callback) = names();
    handle
        .opt_set_meta_context_queries(&["base:".into()], callback)
        .unwrap();
    handle.opt_go().unwrap();
    assert_eq!(
        handle.can_meta_context("base:allocation"),
        Ok(true),
        "what was selected stays"
    );
}

#[test]
fn options_that_are_asked_for_by_hand() {
    let handle = negotiating(|handle| handle.set_request_structured_replies(false).unwrap());
    assert!(!handle.get_structured_replies_negotiated().unwrap());
    assert_eq!(handle.opt_extended_headers(), Ok(false));
    assert!(handle.aio_is_negotiating());
    assert_eq!(handle.opt_structured_reply(), Ok(true));
    assert!(handle.get_structured_replies_negotiated().unwrap());
    assert!(handle.aio_is_negotiating());
}

#[test]
fn without_waiting() {
    let handle = negotiating(|handle| handle.set_export_name("a").unwrap());
    let errors = Arc::new(Mutex::new(Vec::new()));
    let completion = || {
        let to = errors.clone();
        let completion = move |error: &mut i32| {
            to.lock().unwrap().push(*error);
            0
        };
        Some(Box::new(completion) as CompletionCallback)
    };
    let arrive = || {
        while handle.aio_is_connecting() {
            handle.poll(-1).unwrap();
        }
    };
    handle.aio_opt_info(completion()).unwrap();
    assert!(handle.aio_is_connecting());
    // One at a time.
    assert!(
        handle
            .aio_opt_go(None)
            .unwrap_err()
            .to_string()
            .contains("must be negotiating")
    );
    assert!(handle.set_export_name("b").is_err());
    arrive();
    handle.aio_opt_extended_headers(completion()).unwrap();
    arrive();
    handle.set_export_name("nope").unwrap();
    handle.aio_opt_go(completion()).unwrap();
    arrive();
    assert!(handle.aio_is_negotiating());
    handle.set_export_name("b").unwrap();
    handle.aio_opt_go(completion()).unwrap();
    arrive();
    assert!(handle.aio_is_ready());
    assert_eq!(*errors.lock().unwrap(), [0, 95, 2, 0]);
}

#[test]
fn leaving() {
    let handle = negotiating(|_| {});
    handle.opt_abort().unwrap();
    assert!(handle.aio_is_closed());
    let handle = negotiating(|_| {});
    handle.shutdown(0).unwrap();
    assert!(handle.aio_is_closed());
    let handle = negotiating(|_| {});
    handle.aio_opt_abort().unwrap();
    assert!(handle.aio_is_closed());
}

#[test]
fn a_server_that_goes_away_in_the_middle() {
    let handle = Handle::new().unwrap();
    handle.set_opt_mode(true).unwrap();
    handle.set_request_structured_replies(false).unwrap();
    connect(&handle, |peer| {
        peer.greet()?;
        peer.option().map(drop)
    })
    .unwrap();
    let lost = Arc::new(Mutex::new(0));
    let to = lost.clone();
    let completion = move |error: &mut i32| {
        *to.lock().unwrap() = *error;
        0
    };
    handle.aio_opt_info(Some(Box::new(completion))).unwrap();
    let error = loop {
        if let Err(error) = handle.poll(-1) {
            break error;
        }
    };
    assert_eq!(
        error.to_string(),
        "nbd_poll: recv: server disconnected unexpectedly"
    );
    assert!(handle.aio_is_dead());
    assert_eq!(*lost.lock().unwrap(), 107);
}

#[test]
fn a_server_without_fixed_newstyle() {
    let handle = Handle::new().unwrap();
    handle.set_opt_mode(true).unwrap();
    handle.set_handshake_flags(0).unwrap();
    handle.set_export_name("name").unwrap();
    connect(&handle, |peer| {
        assert_eq!(peer.greet()?, 0);
        let (option, data) = peer.option()?;
        assert_eq!((option, &data[..]), (1, &b"name"[..]));
        let mut answer = SIZE.to_be_bytes().to_vec();
        answer.extend_from_slice(&[0, 1]);
        answer.resize(134, 0);
        peer.send(&answer)?;
        peer.rest()
    })
    .unwrap();
    assert_eq!(handle.get_protocol().unwrap(), c"newstyle");
    let error = handle.opt_info().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("server is not using fixed newstyle protocol")
    );
    handle.opt_go().unwrap();
    assert_eq!(handle.get_size().unwrap(), SIZE as i64);
    assert_eq!(handle.get_handshake_flags(), 0);
}

#[test]
fn old_servers_that_know_no_go() {
    let handle = connected(|peer| {
        peer.greet()?;
        loop {
            let (option, _) = peer.option()?;
            if option == 1 {
                let mut answer = SIZE.to_be_bytes().to_vec();
                answer.extend_from_slice(&[0, 1]);
                peer.send(&answer)?;
                return peer.rest();
            }
            peer.send(&reply(option, UNSUP, &[]))?;
        }
    });
    assert!(handle.aio_is_ready());
    assert_eq!(handle.get_size().unwrap(), SIZE as i64);
}
