//! `blkit-load run`: threads, each with its share of the connections.
//!
//! A thread with one connection receives with a blocking call: two system calls per batch. One with
//! more waits with epoll; with `--busy 1` nothing waits. Time is looked at once per batch.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nbd::{Mode, client::ClientOptions, proto};
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll},
    io::Errno,
    net::RecvFlags,
    time::ClockId,
};
use serde_json::{Value, json};

use crate::{
    args::Args,
    connection::{Connection, Mix, Pattern, Totals, check},
    net::{Address, Socket, handshake},
};

/// A server that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to run.
pub struct Settings {
    seconds: Option<f64>,
    count: Option<u64>,
    depth: u32,
    connections: usize,
    threads: usize,
    mix: Mix,
    random: bool,
    block: u64,
    range: Option<u64>,
    export: String,
    mode: Mode,
    checksum: bool,
    busy: bool,
    sample: u64,
    send_buffer: usize,
    receive_buffer: usize,
    seed: u64,
}

impl Settings {
    /// Takes them from the command line.
    pub fn take(args: &mut Args) -> Result<Settings> {
        let depth = args.or("depth", 32u32)?;
        let mixes = [
            ("read", Mix::Read),
            ("write", Mix::Write),
            ("mixed", Mix::Mixed),
        ];
        let modes = [
            ("structured", Mode::Structured),
            ("simple", Mode::Simple),
            ("extended", Mode::Extended),
        ];
        let settings = Settings {
            seconds: args.take("seconds")?,
            count: args.take("count")?,
            depth,
            connections: args.or("connections", 1)?,
            threads: args.or("threads", 1)?,
            mix: args.word("rw", &mixes)?,
            random: args.word("pattern", &[("random", true), ("sequential", false)])?,
            block: args.size("block-size")?.unwrap_or(4096),
            range: args.size("range")?,
            export: args.or("export", String::new())?,
            mode: args.word("mode", &modes)?,
            checksum: args.switch("checksum")?,
            busy: args.switch("busy")?,
            sample: args.or("sample", if depth < 8 { 1 } else { 16 })?,
            send_buffer: args.size("send-buffer")?.unwrap_or(2 << 20) as usize,
            receive_buffer: args.size("receive-buffer")?.unwrap_or(256 << 10) as usize,
            seed: args.or("seed", 1)?,
        };
        ensure!(
            settings.seconds.is_some() != settings.count.is_some(),
            "--seconds or --count"
        );
        ensure!((1..=4096).contains(&settings.depth), "--depth is 1 to 4096");
        ensure!(
            settings.threads >= 1 && settings.connections >= settings.threads,
            "--threads"
        );
        ensure!(
            settings.block >= 1 && settings.block <= 32 << 20,
            "--block-size is 1 to 32m"
        );
        ensure!(settings.sample >= 1, "--sample is 1 or more");
        ensure!(
            settings.receive_buffer >= 32 << 10,
            "--receive-buffer is 32k or more"
        );
        Ok(settings)
    }
}

/// Runs the load; reports.
pub fn run(settings: &Settings, args: &mut Args) -> Result<Value> {
    let address = Address::take(args)?;
    args.finish()?;
    let mut shares: Vec<Vec<Connection>> = (0..settings.threads).map(|_| Vec::new()).collect();
    let mut mode = Mode::Simple;
    for n in 0..settings.connections {
        let (connection, agreed) = open(settings, &address, n)?;
        shares[n % settings.threads].push(connection);
        mode = agreed;
    }
    let payload = payload(settings.block as usize);
    let (cpu_before, start) = (cpu_time(), Instant::now());
    let end = settings
        .seconds
        .map(|seconds| start + Duration::from_secs_f64(seconds));
    let results: Vec<Result<Vec<Totals>>> = std::thread::scope(|scope| {
        let start = |share| scope.spawn(|| drive(share, settings, &payload, end));
        let threads: Vec<_> = shares.drain(..).map(start).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("a load thread panicked"))
            .collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (cpu_time() - cpu_before).as_secs_f64();
    let mut all = Totals::default();
    for totals in results {
        for totals in totals? {
            add(&mut all, &totals);
        }
    }
    Ok(report(&all, mode, seconds, cpu))
}

fn open(settings: &Settings, address: &Address, n: usize) -> Result<(Connection, Mode)> {
    let socket = address.connect(settings.send_buffer)?;
    socket.set_timeout(PATIENCE)?;
    let options = ClientOptions {
        export: settings.export.clone(),
        mode: settings.mode,
        ..ClientOptions::default()
    };
    let connected = handshake(&socket, options)?;
    let blocks = settings.range.unwrap_or(connected.size) / settings.block;
    let pattern = Pattern {
        mix: settings.mix,
        random: settings.random,
        block: settings.block,
        blocks,
        start: blocks / settings.connections as u64 * n as u64,
        seed: (settings.seed ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        checksum: settings.checksum,
        sample: settings.sample,
    };
    check(&pattern, &connected)?;
    let share = |count: u64| {
        let (each, rest) = (
            count / settings.connections as u64,
            count % settings.connections as u64,
        );
        each + u64::from((n as u64) < rest)
    };
    let quota = settings.count.map_or(u64::MAX, share);
    let connection = Connection::new(socket, connected.mode, pattern, settings.depth, quota);
    Ok((connection, connected.mode))
}

/// Bytes that are neither zero nor the same in every block of a disk.
fn payload(len: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(x | 0x0101_0101_0101_0101).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Drives the connections of one thread to their end.
fn drive(
    mut connections: Vec<Connection>,
    settings: &Settings,
    payload: &[u8],
    end: Option<Instant>,
) -> Result<Vec<Totals>> {
    let mut buf = vec![0; settings.receive_buffer];
    match connections.as_mut_slice() {
        [one] if !settings.busy => alone(one, payload, end, &mut buf)?,
        all if settings.busy => spin(all, payload, end, &mut buf)?,
        all => crowd(all, payload, end, &mut buf)?,
    }
    connections
        .into_iter()
        .map(|connection| leave(connection, settings))
        .collect()
}

fn is_over(end: Option<Instant>) -> bool {
    end.is_some_and(|end| Instant::now() >= end)
}

fn alone(
    connection: &mut Connection,
    payload: &[u8],
    end: Option<Instant>,
    buf: &mut [u8],
) -> Result<()> {
    loop {
        connection.issue()?;
        let sent = connection.flush(payload)?;
        if connection.is_done() {
            return Ok(());
        }
        // While something is left to send, waiting for replies only could wait for ever.
        let flags = if sent {
            RecvFlags::empty()
        } else {
            RecvFlags::DONTWAIT
        };
        if !sent {
            let events = PollFlags::IN | PollFlags::OUT;
            let mut fds = [PollFd::new(&connection.socket, events)];
            ensure!(poll(&mut fds)? != 0, "the server takes and sends nothing");
        }
        if receive(connection, buf, flags)?.is_none() && sent {
            bail!("the server did not answer for {PATIENCE:?}");
        }
        if is_over(end) {
            connection.stop();
        }
    }
}

fn poll(fds: &mut [PollFd<'_>]) -> Result<usize> {
    let limit = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    Ok(rustix::io::retry_on_intr(|| {
        rustix::event::poll(fds, Some(&limit))
    })?)
}

fn spin(
    connections: &mut [Connection],
    payload: &[u8],
    end: Option<Instant>,
    buf: &mut [u8],
) -> Result<()> {
    let mut heard = Instant::now();
    loop {
        let mut busy = false;
        for connection in connections.iter_mut() {
            connection.issue()?;
            connection.flush(payload)?;
            if !connection.is_done() {
                busy = true;
                if receive(connection, buf, RecvFlags::DONTWAIT)?.is_some() {
                    heard = Instant::now();
                }
            }
        }
        if !busy {
            return Ok(());
        }
        ensure!(
            heard.elapsed() < PATIENCE,
            "the server did not answer for {PATIENCE:?}"
        );
        if is_over(end) {
            connections.iter_mut().for_each(Connection::stop);
        }
    }
}

fn crowd(
    connections: &mut [Connection],
    payload: &[u8],
    end: Option<Instant>,
    buf: &mut [u8],
) -> Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (n, connection) in connections.iter().enumerate() {
        let data = epoll::EventData::new_u64(n as u64);
        epoll::add(&poll, &connection.socket, data, epoll::EventFlags::IN)?;
    }
    let mut waiting = vec![false; connections.len()];
    for (n, connection) in connections.iter_mut().enumerate() {
        push(connection, n, payload, &poll, &mut waiting[n])?;
    }
    let limit = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    let mut events = Vec::with_capacity(connections.len().min(256));
    while !connections.iter().all(Connection::is_done) {
        events.clear();
        let wait = || {
            epoll::wait(
                &poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&limit),
            )
        };
        let count = rustix::io::retry_on_intr(wait).context("epoll_wait")?;
        ensure!(count != 0, "the server did not answer for {PATIENCE:?}");
        if is_over(end) {
            connections.iter_mut().for_each(Connection::stop);
        }
        for event in &events {
            let n = event.data.u64() as usize;
            let connection = &mut connections[n];
            // Until the socket is empty, but not for ever: others wait.
            for _ in 0..4 {
                let Some(got) = receive(connection, buf, RecvFlags::DONTWAIT)? else {
                    break;
                };
                if got + connection.carried().len() < buf.len() {
                    break;
                }
            }
            push(connection, n, payload, &poll, &mut waiting[n])?;
        }
    }
    Ok(())
}

/// Issues and sends; asks epoll for room while not all could be sent.
fn push(
    connection: &mut Connection,
    n: usize,
    payload: &[u8],
    poll: impl AsFd,
    waiting: &mut bool,
) -> Result<()> {
    connection.issue()?;
    let left = !connection.flush(payload)?;
    if left != *waiting {
        *waiting = left;
        let out = if left {
            epoll::EventFlags::OUT
        } else {
            epoll::EventFlags::empty()
        };
        let data = epoll::EventData::new_u64(n as u64);
        epoll::modify(poll, &connection.socket, data, epoll::EventFlags::IN | out)?;
    }
    Ok(())
}

/// Receives once. `None` means that nothing came.
fn receive(connection: &mut Connection, buf: &mut [u8], flags: RecvFlags) -> Result<Option<usize>> {
    let carried = connection.carried().len();
    buf[..carried].copy_from_slice(connection.carried());
    connection.totals.receives += 1;
    let result = rustix::io::retry_on_intr(|| {
        rustix::net::recv(&connection.socket, &mut buf[carried..], flags)
    });
    match result {
        Ok((0, _)) => bail!("the server closed the connection"),
        Ok((n, _)) => {
            connection.received(&buf[..carried + n])?;
            Ok(Some(n))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error).context("receive"),
    }
}

/// Says goodbye.
fn leave(connection: Connection, settings: &Settings) -> Result<Totals> {
    let Connection { socket, totals, .. } = connection;
    goodbye(&socket, settings.mode).ok();
    Ok(totals)
}

/// Sends a disconnect request. The server may be gone already: that is no failure of the run.
pub fn goodbye(socket: &Socket, mode: Mode) -> std::io::Result<()> {
    use std::io::Write;
    let request = nbd::client::Request {
        command: proto::CMD_DISC,
        flags: 0,
        cookie: 0,
        offset: 0,
        length: 0,
    };
    let head = nbd::client::encode_request(mode, &request).expect("a length of 0 fits");
    (&mut &*socket).write_all(&head)
}

fn add(all: &mut Totals, one: &Totals) {
    all.requests += one.requests;
    all.bytes += one.bytes;
    all.hole_bytes += one.hole_bytes;
    all.errors += one.errors;
    all.receives += one.receives;
    all.sends += one.sends;
    all.checksum = all.checksum.wrapping_add(one.checksum);
    all.latency.merge(&one.latency);
}

fn report(all: &Totals, mode: Mode, seconds: f64, cpu: f64) -> Value {
    json!({
        "requests": all.requests,
        "bytes": all.bytes,
        "hole_bytes": all.hole_bytes,
        "seconds": seconds,
        "requests_per_second": all.requests as f64 / seconds,
        "bytes_per_second": all.bytes as f64 / seconds,
        "client_cpu_seconds": cpu,
        "client_cpu_us_per_request": cpu * 1e6 / all.requests.max(1) as f64,
        "requests_per_client_core": all.requests as f64 / cpu.max(1e-9),
        "latency_us": {
            "p50": all.latency.quantile_us(0.5),
            "p99": all.latency.quantile_us(0.99),
        },
        "receives": all.receives,
        "sends": all.sends,
        "checksum": all.checksum,
        "mode": format!("{mode:?}").to_lowercase(),
        "errors": all.errors,
    })
}

/// CPU time of this process.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
