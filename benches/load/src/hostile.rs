//! `blkit-load hostile`: clients that a server must survive without letting a good one feel it.
//!
//! Each is a thread with one trick, played again and again on new connections until the time is
//! over. What they get in return is ignored: a server may close on them whenever it likes.

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use nbd::{
    client::{ClientOptions, Request, encode_request},
    proto,
};
use serde_json::{Value, json};

use crate::{
    args::Args,
    crowd::allow_files,
    net::{Address, Socket, handshake},
};

/// A way to behave badly on a fresh connection, until `Instant`.
type Trick = fn(&Socket, Instant) -> Result<()>;

const TRICKS: &[(&str, Trick)] = &[
    ("garbage", garbage),
    ("half_handshake", half_handshake),
    ("byte_by_byte", byte_by_byte),
    ("huge_option", huge_option),
    ("garbage_requests", garbage_requests),
    ("stalled_reader", stalled_reader),
    ("half_payload", half_payload),
    ("out_of_range", out_of_range),
];

/// Runs them.
pub fn run(args: &mut Args) -> Result<Value> {
    let address = Address::take(args)?;
    let (count, seconds) = (args.or("count", 64usize)?, args.or("seconds", 10.0f64)?);
    let trick = args.or("trick", "all".to_owned())?;
    args.finish()?;
    let known = |(_, (name, _)): &(usize, &(&str, Trick))| trick == "all" || trick == *name;
    let played: Vec<usize> = TRICKS
        .iter()
        .enumerate()
        .filter(known)
        .map(|(n, _)| n)
        .collect();
    anyhow::ensure!(!played.is_empty(), "no trick is called {trick}");
    allow_files(count as u64 + 100)?;
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let tries: Vec<AtomicU64> = TRICKS.iter().map(|_| AtomicU64::new(0)).collect();
    let refused = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..count {
            let (address, tries, refused) = (&address, &tries, &refused);
            let trick = played[n % played.len()];
            scope.spawn(move || client(address, trick, end, tries, refused));
        }
    });
    let tries: serde_json::Map<String, Value> = TRICKS
        .iter()
        .zip(&tries)
        .map(|((name, _), count)| ((*name).to_owned(), count.load(Ordering::Relaxed).into()))
        .collect();
    Ok(json!({
        "clients": count,
        "seconds": seconds,
        "connections": tries,
        "refused": refused.load(Ordering::Relaxed),
    }))
}

fn client(address: &Address, trick: usize, end: Instant, tries: &[AtomicU64], refused: &AtomicU64) {
    while Instant::now() < end {
        let socket = address.connect(0).and_then(|socket| {
            socket.set_timeout(Duration::from_millis(200))?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => {
                tries[trick].fetch_add(1, Ordering::Relaxed);
                // Ends with an error as a rule: the server hung up.
                let _ = (TRICKS[trick].1)(&socket, end);
            }
            Err(_) => {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        // The clients are to annoy the server, not to take the CPU from it.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn noise(seed: &mut u64, bytes: &mut [u8]) {
    for byte in bytes {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (*seed >> 56) as u8;
    }
}

fn garbage(mut socket: &Socket, _: Instant) -> Result<()> {
    let (mut seed, mut bytes) = (7, [0; 4096]);
    for _ in 0..16 {
        noise(&mut seed, &mut bytes);
        socket.write_all(&bytes)?;
    }
    Ok(())
}

fn half_handshake(mut socket: &Socket, end: Instant) -> Result<()> {
    let mut greeting = [0; 18];
    socket.read_exact(&mut greeting)?;
    socket.write_all(&3u32.to_be_bytes())?;
    socket.write_all(&proto::OPT_MAGIC.to_be_bytes()[..5])?;
    sleep_until(end, Duration::from_secs(1));
    Ok(())
}

fn byte_by_byte(mut socket: &Socket, end: Instant) -> Result<()> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    for _ in 0..100 {
        bytes.extend_from_slice(&proto::OPT_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&0x7777u32.to_be_bytes());
        bytes.extend_from_slice(&0u32.to_be_bytes());
    }
    for byte in bytes {
        if Instant::now() >= end {
            break;
        }
        socket.write_all(&[byte])?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn huge_option(mut socket: &Socket, _: Instant) -> Result<()> {
    socket.write_all(&3u32.to_be_bytes())?;
    for (option, length) in [
        (proto::OPT_GO, 1 << 20),
        (proto::OPT_SET_META_CONTEXT, u32::MAX),
    ] {
        socket.write_all(&proto::OPT_MAGIC.to_be_bytes())?;
        socket.write_all(&option.to_be_bytes())?;
        socket.write_all(&u32::to_be_bytes(length))?;
        for _ in 0..16 {
            socket.write_all(&[0xff; 65536])?;
        }
    }
    Ok(())
}

fn garbage_requests(mut socket: &Socket, _: Instant) -> Result<()> {
    handshake(socket, ClientOptions::default())?;
    let (mut seed, mut bytes) = (9, [0; 4096]);
    noise(&mut seed, &mut bytes);
    Ok(socket.write_all(&bytes)?)
}

/// Asks for far more than it ever reads.
fn stalled_reader(mut socket: &Socket, end: Instant) -> Result<()> {
    let connected = handshake(socket, ClientOptions::default())?;
    let length = connected.size.min(1 << 20);
    for cookie in 0..512 {
        let request = Request {
            command: proto::CMD_READ,
            flags: 0,
            cookie,
            offset: 0,
            length,
        };
        let head = encode_request(connected.mode, &request).expect("the length fits");
        socket.write_all(&head)?;
    }
    sleep_until(end, Duration::from_secs(2));
    Ok(())
}

/// Announces a payload and sends half of it.
fn half_payload(mut socket: &Socket, end: Instant) -> Result<()> {
    let connected = handshake(socket, ClientOptions::default())?;
    let length = connected.size.min(16 << 20);
    let request = Request {
        command: proto::CMD_WRITE,
        flags: 0,
        cookie: 1,
        offset: 0,
        length,
    };
    let head = encode_request(connected.mode, &request).expect("the length fits");
    socket.write_all(&head)?;
    for _ in 0..(length / 2) >> 16 {
        socket.write_all(&[0x11; 65536])?;
    }
    sleep_until(end, Duration::from_secs(1));
    Ok(())
}

fn out_of_range(mut socket: &Socket, _: Instant) -> Result<()> {
    let connected = handshake(socket, ClientOptions::default())?;
    let mut replies = [0; 4096];
    for cookie in 0..1000 {
        let offset = u64::MAX - cookie;
        let request = Request {
            command: proto::CMD_READ,
            flags: 0,
            cookie,
            offset,
            length: 4096,
        };
        let head = encode_request(connected.mode, &request).expect("the length fits");
        socket.write_all(&head)?;
        let _ = socket.read(&mut replies)?;
    }
    Ok(())
}

fn sleep_until(end: Instant, most: Duration) {
    std::thread::sleep(end.saturating_duration_since(Instant::now()).min(most));
}
