//! The clients: one run against one server, and what came of it.

use std::{process::Command, time::Instant};

use serde_json::Value;

use super::{
    process,
    rows::{Client, Row},
    servers::{Disk, Server, World},
};
use crate::tool;

/// One run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Requests per second.
    pub rate: f64,
    /// Bytes per second.
    pub bytes: f64,
    /// CPU time of the server per request, in microseconds; per MiB where rates are in bytes.
    pub cpu: f64,
    /// Median latency in microseconds; 0 if it was not told.
    pub p50: f64,
    /// Latency that 99 % stay below.
    pub p99: f64,
    /// CPU time of the client per request, in microseconds; 0 if it was not told.
    pub client_cpu: f64,
    /// Peak memory of the server in MiB.
    pub memory: f64,
}

/// Where rows on one CPU run.
const ONE_CPU: &str = "0";

/// Runs a row's client against a server.
pub fn measure(world: &World, server: &Server, row: &Row, seconds: f64) -> Result<Sample, String> {
    process::forget_peak(server.pid());
    if row.one_cpu {
        process::pin(server.pid(), ONE_CPU)?;
    }
    let before = server.cpu();
    let mut sample = match row.client {
        Client::Load => load(world, server, row, seconds)?,
        Client::Fio => fio(world, server, row, seconds)?,
        Client::Nbdcopy => nbdcopy(world, server, row)?,
    };
    // A server's child for the connection may still be about to end.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let used = server.cpu() - before;
    if row.one_cpu {
        process::pin(server.pid(), &process::all_cpus())?;
    }
    let units = if row.is_bulk() {
        sample.done.bytes / (1 << 20) as f64
    } else {
        sample.done.requests
    };
    sample.sample.cpu = used * 1e6 / units.max(1.0);
    sample.sample.memory = process::memory_kib(server.pid()).1 as f64 / 1024.0;
    Ok(sample.sample)
}

/// A bare copy, in the row's direction over its kind of socket.
pub fn copy(world: &World, row: &Row, seconds: f64) -> Result<Sample, String> {
    let mut command = Command::new(&world.load);
    command.args(["copy", "--kind", if row.tcp { "tcp" } else { "unix" }]);
    command.args(["--direction", if row.write { "write" } else { "read" }]);
    command.args([
        "--chunk",
        &row.block.to_string(),
        "--seconds",
        &seconds.to_string(),
    ]);
    let told = json(&tool::output(&mut command)?)?;
    let bytes = number(&told, "bytes_per_second")?;
    let moved = number(&told, "bytes")? / (1 << 20) as f64;
    let cpu = number(&told, "peer_cpu_seconds")? * 1e6 / moved.max(1.0);
    Ok(Sample {
        bytes,
        rate: bytes / row.block as f64,
        cpu,
        ..Sample::default()
    })
}

/// Writes the whole disk once, so that reads find data.
pub fn fill(world: &World, server: &Server) -> Result<(), String> {
    let mut command = Command::new(&world.load);
    command.arg("run").args(server.place.load_words());
    command.args([
        "--export",
        server.kind.export(),
        "--rw",
        "write",
        "--pattern",
        "sequential",
    ]);
    command.args([
        "--block-size",
        "1m",
        "--depth",
        "4",
        "--count",
        &(world.size >> 20).to_string(),
    ]);
    let told = json(&tool::output(&mut command)?)?;
    match told["errors"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(format!("{}: cannot be filled", server.kind.name())),
    }
}

/// A sample, and what it is to be divided by.
struct Run {
    sample: Sample,
    done: Done,
}

struct Done {
    requests: f64,
    bytes: f64,
}

fn load(world: &World, server: &Server, row: &Row, seconds: f64) -> Result<Run, String> {
    let mut command = Command::new(if row.one_cpu {
        "taskset".as_ref()
    } else {
        world.load.as_os_str()
    });
    if row.one_cpu {
        command.args(["-c", ONE_CPU]).arg(&world.load);
    }
    command.arg("run").args(server.place.load_words());
    command.args(["--export", server.kind.export()]);
    command.args(["--rw", if row.write { "write" } else { "read" }]);
    command.args([
        "--pattern",
        if row.random { "random" } else { "sequential" },
    ]);
    command.args([
        "--block-size",
        &row.block.to_string(),
        "--depth",
        &row.depth.to_string(),
    ]);
    command.args(["--connections", &row.connections.to_string()]);
    command.args([
        "--mode",
        if row.structured {
            "structured"
        } else {
            "simple"
        },
    ]);
    command.args(["--seconds", &seconds.to_string()]);
    let told = json(&tool::output(&mut command)?)?;
    if told["errors"].as_u64() != Some(0) {
        return Err(format!(
            "{}: {}: error replies",
            server.kind.name(),
            row.name()
        ));
    }
    let structured = row.structured;
    if !structured && told["hole_bytes"].as_u64() != Some(0) {
        return Err(format!("{}: holes in simple replies", server.kind.name()));
    }
    let latency = &told["latency_us"];
    Ok(Run {
        sample: Sample {
            rate: number(&told, "requests_per_second")?,
            bytes: number(&told, "bytes_per_second")?,
            p50: number(latency, "p50")?,
            p99: number(latency, "p99")?,
            client_cpu: number(&told, "client_cpu_us_per_request")?,
            ..Sample::default()
        },
        done: Done {
            requests: number(&told, "requests")?,
            bytes: number(&told, "bytes")?,
        },
    })
}

fn fio(world: &World, server: &Server, row: &Row, seconds: f64) -> Result<Run, String> {
    let verb = if row.write { "write" } else { "read" };
    let order = if row.random { "rand" } else { "" };
    let mut command = Command::new("fio");
    command.args([
        "--name=row",
        "--ioengine=nbd",
        "--output-format=json",
        "--randrepeat=0",
    ]);
    command.arg(format!("--uri={}", server.place.uri(server.kind.export())));
    command
        .arg(format!("--rw={order}{verb}"))
        .arg(format!("--bs={}", row.block));
    command
        .arg(format!("--iodepth={}", row.depth))
        .arg(format!("--numjobs={}", row.connections));
    command
        .arg("--group_reporting")
        .arg(format!("--size={}", world.size));
    command
        .arg("--time_based")
        .arg(format!("--runtime={}ms", (seconds * 1000.0) as u64));
    let text = tool::output(&mut command)?;
    // fio may say something before its JSON.
    let told = json(text.find('{').map_or("", |start| &text[start..]))?;
    let told = &told["jobs"][0][verb];
    let (requests, bytes) = (number(told, "total_ios")?, number(told, "io_bytes")?);
    let clat = &told["clat_ns"]["percentile"];
    Ok(Run {
        sample: Sample {
            rate: number(told, "iops")?,
            bytes: number(told, "bw_bytes")?,
            p50: clat["50.000000"].as_f64().unwrap_or(0.0) / 1000.0,
            p99: clat["99.000000"].as_f64().unwrap_or(0.0) / 1000.0,
            ..Sample::default()
        },
        done: Done { requests, bytes },
    })
}

/// Out goes nowhere; in comes a file that lies in memory.
fn nbdcopy(world: &World, server: &Server, row: &Row) -> Result<Run, String> {
    let uri = server.place.uri(server.kind.export());
    let mut command = Command::new("nbdcopy");
    if row.write {
        let file = world.file(Disk::Tmpfs).expect("a file");
        command.arg(file).arg(uri);
    } else {
        command.arg(uri).arg("null:");
    }
    let start = Instant::now();
    tool::output(&mut command)?;
    let bytes = world.size as f64 / start.elapsed().as_secs_f64();
    Ok(Run {
        sample: Sample {
            rate: bytes / row.block as f64,
            bytes,
            ..Sample::default()
        },
        done: Done {
            requests: (world.size / row.block) as f64,
            bytes: world.size as f64,
        },
    })
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("a client's report: {error}: {text}"))
}

fn number(told: &Value, name: &str) -> Result<f64, String> {
    told[name]
        .as_f64()
        .ok_or_else(|| format!("a client's report has no {name}: {told}"))
}
