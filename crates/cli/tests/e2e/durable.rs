//! Durability, by a trace of system calls: what makes data durable has returned before the client is
//! told so, with many requests in flight.
//!
//! This looks at the poll driver, whose calls strace(1) sees; `medium` looks at both from below.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    process::{Child, Stdio},
};

use crate::{
    bench::{Place, eventually, have, wait},
    raw::{FLUSH, FUA, Raw, WRITE, request},
};

/// Cookies tell the trace what was asked: the kind here, then the client, then the round.
const PLAIN: u64 = 0x1_0000;
const FORCED: u64 = 0x2_0000;
const FLUSHED: u64 = 0x3_0000;

const CLIENTS: u64 = 4;
const ROUNDS: u64 = 30;

#[test]
fn nothing_is_promised_before_it_is_durable() {
    if !have(&["strace"]) {
        return;
    }
    let place = Place::new();
    place.sparse("disk.img", 4 << 20);
    let server = place.serve_here(&["--io", "poll", "--threads", "1", "disk.img"]);
    let trace = place.path("trace");
    let Some(mut strace) = attach(&place, server.pid(), &trace) else {
        server.stop();
        // It may have been made before the refusal.
        let _ = fs::remove_file(trace);
        return println!("SKIP: strace may not attach to a process here");
    };
    // All clients' requests of a round are in flight together.
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| Raw::connect(&place.path("s")))
        .collect();
    for round in 0..ROUNDS {
        for (id, client) in (0..).zip(&mut clients) {
            let cookie = id << 8 | round;
            let mut bytes = Vec::new();
            for (flags, kind) in [(0, PLAIN), (FUA, FORCED)] {
                bytes.extend(request(flags, WRITE, kind | cookie, cookie << 12, 4096));
                bytes.extend([round as u8 + 1; 4096]);
            }
            bytes.extend(request(0, FLUSH, FLUSHED | cookie, 0, 0));
            client.send(&bytes);
        }
        for client in &mut clients {
            (0..3).for_each(|_| assert!(client.done() >= PLAIN));
        }
    }
    drop(clients);
    server.stop();
    assert!(wait(&mut strace).success());
    let seen = check(&fs::read_to_string(&trace).expect("a trace"));
    let all = CLIENTS * ROUNDS;
    assert_eq!(seen, (all, all), "replies to flushes and to FUA writes");
    fs::remove_file(trace).expect("removes the trace");
}

/// Traces a running process until it ends; `None` if that is not allowed.
pub fn attach(place: &Place, pid: u32, trace: &Path) -> Option<Child> {
    let pid = pid.to_string();
    let calls = "trace=fdatasync,fsync,pwritev2,pwritev,pwrite64,sendmsg,sendto,writev,write,readv";
    let mut strace = place
        .command("strace")
        .args([
            "-f", "-qq", "-v", "-xx", "-s", "65536", "-e", calls, "-p", &pid, "-o",
        ])
        .arg(trace)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace starts");
    let mut refused = false;
    eventually("strace attaches", || {
        refused = strace.try_wait().expect("looks").is_some();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
        let traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        refused || tasks.flatten().all(traced)
    });
    (!refused).then_some(strace)
}

/// Follows the trace. A flush is answered only after an fdatasync(2) that began when the client had
/// the answers to its previous round, and has returned; a write with FUA only after its own call
/// with RWF_DSYNC. Returns the replies to flushes and to writes with FUA.
fn check(trace: &str) -> (u64, u64) {
    let (mut syncs, mut syncing) = (Vec::new(), HashMap::new());
    let (mut forced, mut forcing) = (0, HashSet::new());
    let mut answered = HashMap::new();
    let (mut flushes, mut writes) = (0, 0);
    for (at, line) in trace.lines().enumerate() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        let returned = !line.ends_with("<unfinished ...>");
        assert!(
            !(line.contains("sync") && line.contains(") = -1")),
            "{line}"
        );
        if line.contains("fdatasync(") {
            syncing.insert(thread, at);
        }
        if line.contains("RWF_DSYNC") {
            forcing.insert(thread);
        }
        if line.contains("fdatasync") && returned {
            syncs.push(syncing.remove(thread).expect("it began"));
        }
        if line.contains("pwritev2") && returned && forcing.remove(thread) {
            forced += 1;
        }
        for cookie in replies(line) {
            let (kind, client, round) = (cookie & !0xffff, cookie >> 8 & 0xff, cookie & 0xff);
            let asked = round
                .checked_sub(1)
                .and_then(|last| answered.get(&(client, last)));
            if kind == FLUSHED {
                flushes += 1;
                let durable = syncs
                    .iter()
                    .any(|&begun| asked.is_none_or(|&asked| begun > asked));
                assert!(durable, "a flush is answered too early: line {at}: {line}");
            }
            writes += u64::from(kind == FORCED);
            assert!(
                writes <= forced,
                "{writes} FUA writes, {forced} done: line {at}: {line}"
            );
            answered.insert((client, round), at);
        }
    }
    (flushes, writes)
}

/// The cookies of the simple replies of success that a call sends.
fn replies(line: &str) -> Vec<u64> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("\\x{b:02x}")).collect() };
    let sends = line.contains("sendmsg(") || line.contains("sendto(");
    let head = hex(b"gDf\x98\0\0\0\0");
    let parts = line.split(&head).skip(1);
    let cookie = |part: &str| {
        let digits: String = part
            .split("\\x")
            .skip(1)
            .take(8)
            .map(|byte| &byte[..2])
            .collect();
        u64::from_str_radix(&digits, 16).expect("8 bytes")
    };
    parts.filter(|_| sends).map(cookie).collect()
}
