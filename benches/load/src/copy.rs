//! `blkit-load copy`: what a socket can carry, between two processes, with nothing done to the bytes.
//!
//! The yardstick for large transfers, so everything is as in a run against a server: the same kind
//! of socket, the same buffer sizes, the receiver's memory as large as the load generator's, and the
//! sender sends from memory, a block per call.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{io::Errno, net::SendFlags};
use serde_json::{Value, json};

use crate::{args::Args, engine::cpu_time, net::Socket};

struct Shape {
    sends: bool,
    chunk: usize,
    send_buffer: usize,
    receive_buffer: usize,
}

impl Shape {
    fn take(args: &mut Args, sends_if: &str) -> Result<Shape> {
        let words = [("read", sends_if == "read"), ("write", sends_if == "write")];
        let shape = Shape {
            sends: args.word("direction", &words)?,
            chunk: args.size("chunk")?.unwrap_or(1 << 20) as usize,
            send_buffer: args.size("send-buffer")?.unwrap_or(2 << 20) as usize,
            receive_buffer: args.size("receive-buffer")?.unwrap_or(256 << 10) as usize,
        };
        ensure!(
            shape.chunk != 0 && shape.receive_buffer != 0,
            "sizes are not 0"
        );
        Ok(shape)
    }
}

/// The measuring end: receives with `--direction read`, sends with `write`.
pub fn run(args: &mut Args) -> Result<Value> {
    let tcp = args.word("kind", &[("unix", false), ("tcp", true)])?;
    let seconds = Duration::from_secs_f64(args.or("seconds", 1.0)?);
    let shape = Shape::take(args, "write")?;
    args.finish()?;
    let (ours, theirs) = pair(tcp)?;
    let direction = if shape.sends { "write" } else { "read" };
    let mut child = Command::new(std::env::current_exe()?)
        .args(["copy-peer", "--direction", direction])
        .args(["--chunk", &shape.chunk.to_string()])
        .args(["--send-buffer", &shape.send_buffer.to_string()])
        .args(["--receive-buffer", &shape.receive_buffer.to_string()])
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the other process")?;
    let (cpu, start) = (cpu_time(), Instant::now());
    let bytes = transfer(&ours, &shape, Some(start + seconds))?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_time() - cpu);
    drop(ours);
    let mut told = String::new();
    child
        .stdout
        .take()
        .expect("piped")
        .read_to_string(&mut told)?;
    ensure!(child.wait()?.success(), "the other process failed");
    let told: Value = serde_json::from_str(&told).context("the other process's report")?;
    Ok(json!({
        "bytes": bytes,
        "seconds": seconds,
        "bytes_per_second": bytes as f64 / seconds,
        "cpu_seconds": cpu.as_secs_f64(),
        "peer_cpu_seconds": told["cpu_seconds"],
    }))
}

/// The other end, on standard input.
pub fn peer(args: &mut Args) -> Result<Option<Value>> {
    let shape = Shape::take(args, "read")?;
    args.finish()?;
    let socket = Socket::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let bytes = transfer(&socket, &shape, None)?;
    Ok(Some(
        json!({ "bytes": bytes, "cpu_seconds": cpu_time().as_secs_f64() }),
    ))
}

/// Moves bytes one way until the time is over or the other end closes.
fn transfer(socket: &Socket, shape: &Shape, end: Option<Instant>) -> Result<u64> {
    let mut total = 0;
    let mut buf = vec![
        0x5a;
        if shape.sends {
            shape.chunk
        } else {
            shape.receive_buffer
        }
    ];
    socket.set_send_buffer(shape.send_buffer)?;
    while end.is_none_or(|end| Instant::now() < end) {
        let moved = if shape.sends {
            rustix::net::send(socket, &buf, SendFlags::NOSIGNAL)
        } else {
            rustix::io::read(socket, &mut buf)
        };
        match moved {
            Ok(0) | Err(Errno::PIPE | Errno::CONNRESET) => break,
            Ok(n) => total += n as u64,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("copy"),
        }
    }
    Ok(total)
}

fn pair(tcp: bool) -> Result<(Socket, OwnedFd)> {
    if !tcp {
        let (ours, theirs) = UnixStream::pair()?;
        return Ok((OwnedFd::from(ours).into(), theirs.into()));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let theirs = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    for stream in [&ours, &theirs] {
        stream.set_nodelay(true)?;
    }
    Ok((OwnedFd::from(ours).into(), theirs.into()))
}
