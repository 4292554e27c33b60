//! `blkit-load`: puts load on an NBD server or another disk, and says what came back.
//!
//! **What.** `run` keeps a number of requests in flight on a number of connections; `disk` does so on
//! queues of a library or of a vhost-user server ([`disk`]); `copy` measures
//! a bare socket copy, the yardstick of large transfers; `idle`, `connects` and `hostile` are crowds
//! for soak tests. Each prints one line of JSON.
//!
//! **Why so.** Usual clients spend as much CPU per request as the servers they measure, so they show
//! their own speed. This one sends all it can in one system call, receives in bulk, parses in place
//! with [`nbd::client::Replies`], copies no payload and allocates nothing per request. The line it
//! prints has its own CPU time: `requests_per_client_core` is what it could do at most.
//!
//! **Contract.** Every reply is checked as any careful client would: cookies, ranges, lengths. A
//! server that breaks the protocol ends the run with an error; error replies are counted.
#![deny(unsafe_code)]

mod args;
mod connection;
mod copy;
mod crowd;
mod disk;
mod engine;
mod hostile;
mod latency;
mod net;
mod outbox;

use std::process::ExitCode;

use anyhow::{Result, bail};
use args::Args;
use serde_json::Value;

const USAGE: &str = "\
usage: blkit-load COMMAND [OPTION VALUE]...
of NBD: --unix PATH | --tcp HOST:PORT

run       requests until the time is over, or as many as asked for
          --seconds S | --count N, --depth 32, --connections 1, --threads 1, --block-size 4k,
          --rw read|write|mixed, --pattern random|sequential, --range BYTES, --export NAME,
          --mode simple|structured|extended, --checksum 0|1, --busy 0|1, --sample N,
          --send-buffer 2m, --receive-buffer 256k, --seed N
disk      the same on queues of a disk, through a library of libblkio's interface or our own rings
          --client blkio (--library libblkio.so.1 --driver virtio-blk-vhost-user --path PATH
          --properties NAME=VALUE,... (before connecting) --start-properties ... (after it)
          --wait do-io|fd|poll), or --client ring (--path SOCKET --queue-size 256 --packed 0|1
          --inflight 0|1); --seconds 1, --count N (of each queue), --depth 32, --queues 1,
          --block-size 4k, --rw, --pattern, --range, --seed, --verify 0|1, --linger 0
copy      bare copy over a socket of the same kind, between two processes (no server needed)
          --kind unix|tcp, --direction read|write, --seconds S, --chunk 1m, --send-buffer,
          --receive-buffer
idle      connections that do nothing until standard input ends
          --count 10000, --handshake 0|1
connects  connect, handshake, disconnect, at a rate
          --rate 1000, --seconds 10
hostile   clients that break rules: garbage, half handshakes, stalled readers, ...
          --count 64, --seconds 10
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command(&words) {
        Ok(Some(report)) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("blkit-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[String]) -> Result<Option<Value>> {
    let Some((name, rest)) = words.split_first() else {
        bail!("no command\n{USAGE}");
    };
    let mut args = Args::parse(rest)?;
    let report = match name.as_str() {
        "run" => Some(engine::run(&engine::Settings::take(&mut args)?, &mut args)?),
        "disk" => Some(disk::run(&mut args)?),
        "copy" => Some(copy::run(&mut args)?),
        "copy-peer" => copy::peer(&mut args)?,
        "idle" => crowd::idle(&mut args)?,
        "connects" => Some(crowd::connects(&mut args)?),
        "hostile" => Some(hostile::run(&mut args)?),
        "help" | "-h" | "--help" => {
            print!("{USAGE}");
            None
        }
        other => bail!("unknown command '{other}'\n{USAGE}"),
    };
    Ok(report)
}
