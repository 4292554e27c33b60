//! Many connections: `idle` holds them, `connects` makes and ends them at a rate.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nbd::client::ClientOptions;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::{
    args::Args,
    engine::goodbye,
    latency::Histogram,
    net::{Address, handshake},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Opens connections, prints a line when all are there, and holds them until standard input ends.
pub fn idle(args: &mut Args) -> Result<Option<Value>> {
    let address = Address::take(args)?;
    let count = args.or("count", 10_000usize)?;
    let with_handshake = args.or("handshake", 1u8)? != 0;
    args.finish()?;
    allow_files(count as u64 + 100)?;
    let start = Instant::now();
    let mut all = Vec::with_capacity(count);
    for n in 0..count {
        let socket = address
            .connect(0)
            .with_context(|| format!("connection {n}"))?;
        socket.set_timeout(PATIENCE)?;
        if with_handshake {
            handshake(&socket, ClientOptions::default())
                .with_context(|| format!("connection {n}"))?;
        }
        all.push(socket);
    }
    println!(
        "{}",
        json!({ "connections": count, "seconds": start.elapsed().as_secs_f64() })
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(None)
}

/// Connects, shakes hands and says goodbye, so many times a second.
pub fn connects(args: &mut Args) -> Result<Value> {
    let address = Address::take(args)?;
    let (rate, seconds) = (args.or("rate", 1000.0f64)?, args.or("seconds", 10.0f64)?);
    args.finish()?;
    ensure!(
        rate > 0.0 && seconds > 0.0,
        "--rate and --seconds are above 0"
    );
    let (start, mut latency) = (Instant::now(), Histogram::default());
    let (mut done, mut failed, mut late) = (0u64, 0u64, 0u64);
    let planned = (rate * seconds) as u64;
    for n in 0..planned {
        let due = start + Duration::from_secs_f64(n as f64 / rate);
        match due.checked_duration_since(Instant::now()) {
            Some(early) => std::thread::sleep(early),
            None => late += u64::from(due.elapsed() > Duration::from_millis(10)),
        }
        let begin = Instant::now();
        match one(&address) {
            Ok(()) => done += 1,
            Err(_) => failed += 1,
        }
        latency.add(begin.elapsed());
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(json!({
        "planned": planned,
        "done": done,
        "failed": failed,
        "late": late,
        "seconds": seconds,
        "per_second": done as f64 / seconds,
        "latency_us": { "p50": latency.quantile_us(0.5), "p99": latency.quantile_us(0.99) },
    }))
}

fn one(address: &Address) -> Result<()> {
    let socket = address.connect(0)?;
    socket.set_timeout(PATIENCE)?;
    let connected = handshake(&socket, ClientOptions::default())?;
    Ok(goodbye(&socket, connected.mode)?)
}

/// Raises the limit of open files.
pub fn allow_files(wanted: u64) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    ensure!(
        maximum.is_none_or(|maximum| maximum >= wanted),
        "{wanted} open files are needed, and {} is the limit (ulimit -Hn)",
        maximum.unwrap_or_default()
    );
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum,
        },
    )
    .context("RLIMIT_NOFILE")
}
