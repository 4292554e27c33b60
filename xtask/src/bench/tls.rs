//! `cargo xtask bench tls`: the same command line, given to blkit and to nbdkit, with pre-shared keys;
//! nbdcopy as the client, and how many connections a second are let in.
//!
//! nbdcopy's process encrypts too, on the same CPUs: beside the rate stands the server's own CPU time
//! for each byte, which shows what the server costs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use super::{
    nbd,
    servers::{Disk, Kind, Place, Server, World},
};
use crate::tool::{self, Profile};

/// The disk, in bytes: large enough for a second of copying.
const SIZE: u64 = 64 << 20;

/// Measurements of each row, of which the median counts.
const ROUNDS: usize = 5;

/// Connections of one measurement.
const CONNECTIONS: u32 = 20;

/// One client's way to copy.
struct Row {
    write: bool,
    requests: u32,
    connections: u32,
    block: u64,
}

/// What came of it.
#[derive(Clone, Copy, Default)]
struct Sample {
    /// Things a second: bytes, or connections.
    rate: f64,
    /// The server's CPU seconds for each.
    cpu: f64,
}

/// Runs all of it and prints a table.
pub fn run(words: &[String]) -> Result<(), String> {
    let output = match words {
        [] => None,
        [name, path] if name == "--output" => Some(path),
        _ => return Err(super::USAGE.into()),
    };
    for program in ["nbdcopy", "nbdinfo", "nbdkit"] {
        if !tool::is_there(program) {
            return Err(format!("{program} is not installed"));
        }
    }
    let world = nbd::world(SIZE, Profile::Dist)?;
    let keys = world.folder.join("keys.psk");
    std::fs::write(&keys, "bench:00112233445566778899aabbccddeeff\n")
        .map_err(|error| format!("{}: {error}", keys.display()))?;
    nbd::make_file(&world.tmpfs_file, SIZE)?;
    let servers = [Kind::Blkit, Kind::Nbdkit].map(|kind| start(&world, kind, &keys));
    let [ours, theirs] = servers;
    let servers = [ours?, theirs?];
    let mut table = String::from(
        "| with TLS (PSK), RAM disk, Unix socket | blkit | nbdkit | ratio | server CPU of blkit | of nbdkit |\n\
         | --- | --: | --: | --: | --: | --: |\n",
    );
    for write in [true, false] {
        for (requests, connections, block) in [
            (1, 1, 4 << 10),
            (32, 1, 4 << 10),
            (1, 1, 256 << 10),
            (32, 1, 256 << 10),
            (32, 4, 256 << 10),
        ] {
            let row = Row {
                write,
                requests,
                connections,
                block,
            };
            let samples = compare(&servers, |server| copy(&world, server, &keys, &row))?;
            let what = format!(
                "nbdcopy {}, {} KiB, depth {requests}, {connections} connections",
                if write { "in" } else { "out" },
                block >> 10,
            );
            table.push_str(&line(
                &what,
                samples,
                "MB/s",
                1e-6,
                ("ns/KiB", 1e9 * 1024.0),
            ));
        }
    }
    let samples = compare(&servers, |server| connect(server, &keys))?;
    table.push_str(&line(
        "nbdinfo, a connection each",
        samples,
        "/s",
        1.0,
        ("ms", 1e3),
    ));
    match output {
        None => println!("{table}"),
        Some(path) => std::fs::write(path, table).map_err(|e| format!("{path}: {e}"))?,
    }
    Ok(())
}

fn line(
    what: &str,
    [ours, theirs]: [Sample; 2],
    unit: &str,
    scale: f64,
    (cpu_unit, cpu_scale): (&str, f64),
) -> String {
    let line = format!(
        "| {what} | {:.1} {unit} | {:.1} {unit} | {:.2} | {:.1} {cpu_unit} | {:.1} {cpu_unit} |\n",
        ours.rate * scale,
        theirs.rate * scale,
        ours.rate / theirs.rate,
        ours.cpu * cpu_scale,
        theirs.cpu * cpu_scale,
    );
    eprint!("{line}");
    line
}

/// Both servers in turns; medians.
fn compare(
    servers: &[Server; 2],
    mut measure: impl FnMut(&Server) -> Result<Sample, String>,
) -> Result<[Sample; 2], String> {
    let mut samples = [const { Vec::new() }; 2];
    for round in 0..ROUNDS {
        for n in [round % 2, 1 - round % 2] {
            samples[n].push(measure(&servers[n])?);
        }
    }
    Ok(samples.map(|samples| {
        let of =
            |get: fn(&Sample) -> f64| tool::median(&samples.iter().map(get).collect::<Vec<_>>());
        Sample {
            rate: of(|sample| sample.rate),
            cpu: of(|sample| sample.cpu),
        }
    }))
}

/// The command line is the same for both, so the program is all that differs.
fn start(world: &World, kind: Kind, keys: &Path) -> Result<Server, String> {
    let socket: PathBuf = world.folder.join(format!("{}.sock", kind.name()));
    let mut command = match kind {
        Kind::Blkit => {
            let mut command = Command::new(&world.blkit);
            command.arg("nbdkit");
            command
        }
        _ => Command::new("nbdkit"),
    };
    command.args(["-f", "--tls=require", "--tls-psk"]).arg(keys);
    command.arg("-U").arg(&socket);
    command.args(["memory", &SIZE.to_string()]);
    Server::launch(world, kind, Place::Unix(socket), command)
}

fn uri(server: &Server, keys: &Path) -> String {
    let Place::Unix(socket) = &server.place else {
        unreachable!("they listen on Unix sockets")
    };
    format!(
        "nbds+unix://bench@/?socket={}&tls-psk-file={}",
        socket.display(),
        keys.display()
    )
}

fn copy(world: &World, server: &Server, keys: &Path, row: &Row) -> Result<Sample, String> {
    let mut command = Command::new("nbdcopy");
    command
        .arg(format!("--requests={}", row.requests))
        .arg(format!("--connections={}", row.connections))
        .arg(format!("--threads={}", row.connections))
        .arg(format!("--request-size={}", row.block))
        .arg("--allocated");
    let uri = uri(server, keys);
    if row.write {
        command
            .arg(world.file(Disk::Tmpfs).expect("a file"))
            .arg(uri);
    } else {
        command.arg(uri).arg("null:");
    }
    let (before, began) = (server.cpu(), Instant::now());
    tool::output(&mut command)?;
    Ok(Sample {
        rate: SIZE as f64 / began.elapsed().as_secs_f64(),
        cpu: (server.cpu() - before) / SIZE as f64,
    })
}

/// One after the other: each a process, a TLS handshake, the export's facts, and goodbye.
fn connect(server: &Server, keys: &Path) -> Result<Sample, String> {
    let uri = uri(server, keys);
    let (before, began) = (server.cpu(), Instant::now());
    for _ in 0..CONNECTIONS {
        tool::output(Command::new("nbdinfo").args(["--size", &uri]))?;
    }
    Ok(Sample {
        rate: f64::from(CONNECTIONS) / began.elapsed().as_secs_f64(),
        cpu: (server.cpu() - before) / f64::from(CONNECTIONS),
    })
}
