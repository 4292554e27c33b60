//! `cargo xtask soak connections|connects|hostile`: many clients, bad clients, for a while.
//!
//! Passes or fails by what must not depend on the machine: nothing leaks, nothing fails, idle is
//! idle, a good client gets its answers. Times are told and judge nothing, save one bound of the
//! design: memory per idle connection.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    bench::{Disk, Kind, SIZE, Server, World, cpu_ticks, memory_kib, pin, world},
    tool,
};

/// Where hostile clients and the good one beside them run, and where the servers do.
const CLIENTS_CPU: &str = "1";
const SERVERS_CPU: &str = "0";

const USAGE: &str = "\
usage: cargo xtask soak connections [COUNT]   idle connections: memory and CPU (default 10000)
       cargo xtask soak connects [SECONDS]    1000 connects a second: no leak (default 10)
       cargo xtask soak hostile [SECONDS]     64 hostile clients beside a good one (default 20)";

/// Rounds with the hostile clients, and as many without.
const ROUNDS: u64 = 5;

/// Memory of an idle connection, in KiB: the design's budget.
const BUDGET_KIB: f64 = 32.0;

/// Runs a soak test.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let (name, number) = match words {
        [name] => (name.as_str(), None),
        [name, number] => (name.as_str(), Some(number.parse().map_err(|_| USAGE)?)),
        _ => return Err(USAGE.into()),
    };
    let world = world(SIZE, tool::Profile::Release)?;
    let kind = if name == "hostile" {
        pin(std::process::id(), CLIENTS_CPU)?;
        Disk::Memory
    } else {
        Disk::Null
    };
    let server = Server::start(&world, Kind::Blkit, kind, false)?.ok_or("no such disk")?;
    let mut checks = Checks { failed: 0 };
    match name {
        "connections" => connections(&world, &server, number.unwrap_or(10_000), &mut checks)?,
        "connects" => connects(&world, &server, number.unwrap_or(10), &mut checks)?,
        "hostile" => hostile(&world, &server, number.unwrap_or(20), &mut checks)?,
        _ => return Err(USAGE.into()),
    }
    Ok(if checks.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Checks {
    failed: u32,
}

impl Checks {
    fn check(&mut self, good: bool, what: String) {
        println!("{} {what}", if good { "ok    " } else { "FAILED" });
        self.failed += u32::from(!good);
    }
}

fn load(world: &World, server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new(&world.load);
    command
        .arg(words[0])
        .args(server.place.load_words())
        .args(&words[1..]);
    command
}

fn connections(
    world: &World,
    server: &Server,
    count: u64,
    checks: &mut Checks,
) -> Result<(), String> {
    let (number, files) = (count.to_string(), open_files(server));
    // One round before, so that pools and tables have grown, and what they keep is no leak.
    let crowd = Crowd::gather(load(world, server, &["idle", "--count", &number]))?;
    crowd.leave()?;
    open_files_down_to(server, files);
    let before = settled_memory(server);
    let crowd = Crowd::gather(load(world, server, &["idle", "--count", &number]))?;
    let (during, ticks) = (settled_memory(server), cpu_ticks(server.pid()));
    std::thread::sleep(Duration::from_secs(5));
    let used = cpu_ticks(server.pid()) - ticks;
    let fresh = during.saturating_sub(fresh_memory(world)?) as f64 / count as f64;
    checks.check(
        fresh <= BUDGET_KIB,
        format!("{fresh:.1} KiB per idle connection, budget 32"),
    );
    checks.check(
        used <= 1,
        format!("{used} ticks of 10 ms used in 5 idle seconds"),
    );
    crowd.leave()?;
    let after = settled_memory(server);
    let most = before + before / 10 + 2048;
    checks.check(
        after <= most,
        format!("{before} KiB before, {during} with, {after} KiB after"),
    );
    let left = open_files_down_to(server, files);
    checks.check(
        left == files,
        format!("{files} open files before, {left} after"),
    );
    Ok(())
}

/// Memory of a server that never had a client, in KiB.
fn fresh_memory(world: &World) -> Result<u64, String> {
    let server = Server::start(world, Kind::Blkit, Disk::Null, true)?.ok_or("no null disk")?;
    Ok(settled_memory(&server))
}

fn connects(
    world: &World,
    server: &Server,
    seconds: u64,
    checks: &mut Checks,
) -> Result<(), String> {
    let round = |seconds: u64| -> Result<Value, String> {
        let seconds = seconds.to_string();
        report(load(
            world,
            server,
            &["connects", "--rate", "1000", "--seconds", &seconds],
        ))
    };
    round(2)?;
    let (before, files, threads) = (settled_memory(server), open_files(server), threads(server));
    let told = round(seconds)?;
    println!("       {told}");
    let (planned, done) = (told["planned"].as_u64(), told["done"].as_u64());
    checks.check(
        planned == done && done.is_some(),
        format!("{done:?} of {planned:?} served"),
    );
    let after = settled_memory(server);
    checks.check(
        after <= before + 1024,
        format!("{before} KiB before, {after} KiB after"),
    );
    let left = open_files_down_to(server, files);
    checks.check(
        left == files,
        format!("{files} open files before, {left} after"),
    );
    let now = self::threads(server);
    checks.check(
        now <= threads,
        format!("{threads} threads before, {now} after"),
    );
    Ok(())
}

fn hostile(
    world: &World,
    server: &Server,
    seconds: u64,
    checks: &mut Checks,
) -> Result<(), String> {
    let good = |server: &Server, seconds: u64| {
        let seconds = seconds.to_string();
        let words = [
            "run",
            "--seconds",
            &seconds,
            "--rw",
            "mixed",
            "--depth",
            "8",
            // A memory disk grows by what is written: after the first run it has all it will have.
            "--range",
            "16m",
        ];
        load(world, server, &words)
    };
    // Everything has grown to what it will be before memory is looked at.
    report(good(server, 3))?;
    let (files, wave) = (open_files(server), (seconds / ROUNDS).max(1));
    report(crowd(world, server, "3"))?;
    let before = settled_memory(server);
    let peer = Server::start(world, Kind::Nbdkit, Disk::Memory, false).unwrap_or_else(|error| {
        println!("       no nbdkit to compare with: {error}");
        None
    });
    for server in [Some(server), peer.as_ref()].into_iter().flatten() {
        pin(server.pid(), SERVERS_CPU)?;
    }
    let mut ours = Siege::new(server);
    let mut theirs = peer.as_ref().map(Siege::new);
    // In turns, because a machine is not the same from one second to the next.
    for _ in 0..ROUNDS {
        ours.round(world, &good, wave)?;
        let lost = theirs
            .as_mut()
            .map(|theirs| theirs.round(world, &good, wave));
        if let Some(Err(error)) = lost {
            println!("       nbdkit did not last: {error}");
            theirs = None;
        }
    }
    let peak = memory_kib(server.pid()).1;
    let errors = ours.errors;
    checks.check(ours.ended, "the hostile clients ran to their end".into());
    checks.check(errors == 0, format!("{errors} errors of the good client"));
    checks.check(ours.served(), format!("blkit: {}", ours.told()));
    if let Some(theirs) = theirs {
        println!("       nbdkit: {}", theirs.told());
    }
    nothing_left(server, checks, files, (before, peak));
    Ok(())
}

/// A server and how a good client fares with it, with the hostile ones and without.
struct Siege<'a> {
    server: &'a Server,
    alone: Vec<f64>,
    beside: Vec<f64>,
    /// CPU time of the server in seconds per second with the hostile clients only.
    cpu: Vec<f64>,
    errors: u64,
    ended: bool,
}

impl<'a> Siege<'a> {
    fn new(server: &'a Server) -> Siege<'a> {
        Siege {
            server,
            alone: Vec::new(),
            beside: Vec::new(),
            cpu: Vec::new(),
            errors: 0,
            ended: true,
        }
    }

    fn round(
        &mut self,
        world: &World,
        good: &dyn Fn(&Server, u64) -> Command,
        seconds: u64,
    ) -> Result<(), String> {
        let crowd = || crowd(world, self.server, &seconds.to_string());
        let mut bad = crowd()
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        let told = report(good(self.server, seconds))?;
        self.errors += told["errors"].as_u64().unwrap_or(u64::MAX);
        self.beside.push(rate(&told));
        self.ended &= bad.wait().is_ok_and(|status| status.success());
        self.alone.push(rate(&report(good(self.server, seconds))?));
        let ticks = cpu_ticks(self.server.pid());
        report(crowd())?;
        let used = cpu_ticks(self.server.pid()) - ticks;
        self.cpu.push(used as f64 / 100.0 / seconds as f64);
        Ok(())
    }

    fn served(&self) -> bool {
        self.alone
            .iter()
            .chain(&self.beside)
            .all(|rate| *rate > 0.0)
    }

    fn told(&self) -> String {
        let [alone, beside, cpu] =
            [&self.alone, &self.beside, &self.cpu].map(|of| tool::median(of));
        format!(
            "{alone:.0} requests/s alone, {beside:.0} beside the hostile clients ({:.2}), \
             which take {cpu:.2} s of its CPU time a second (medians of {ROUNDS})",
            beside / alone
        )
    }
}

/// 64 hostile clients, of the lowest priority on the good client's CPU: a server answers for what it
/// lets them take from it, not for what they take from others on the machine.
fn crowd(world: &World, server: &Server, seconds: &str) -> Command {
    let words = ["hostile", "--count", "64", "--seconds", seconds];
    let clients = load(world, server, &words);
    let mut command = Command::new("nice");
    command.args(["-n", "19"]);
    command.arg(clients.get_program()).args(clients.get_args());
    command
}

fn rate(told: &Value) -> f64 {
    told["requests_per_second"].as_f64().unwrap_or(0.0)
}

/// The crowd is gone, and so is what it made the server hold.
fn nothing_left(server: &Server, checks: &mut Checks, files: usize, (before, peak): (u64, u64)) {
    let after = settled_memory(server);
    let most = before + before / 10 + 8192;
    let text = format!("{before} KiB before, {after} KiB after, {peak} at most");
    checks.check(after <= most, text);
    let left = open_files_down_to(server, files);
    checks.check(
        left == files,
        format!("{files} open files before, {left} after"),
    );
}

fn report(mut command: Command) -> Result<Value, String> {
    let text = tool::output(&mut command)?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// Connections that are held.
struct Crowd(Child);

impl Crowd {
    /// Starts the program and waits for its line.
    fn gather(mut command: Command) -> Result<Crowd, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.map_or(true, |n| n == 0) {
            let _ = child.wait();
            return Err("the connections could not be made".into());
        }
        println!("       {}", line.trim());
        Ok(Crowd(child))
    }

    fn leave(mut self) -> Result<(), String> {
        drop(self.0.stdin.take());
        let status = self.0.wait().map_err(|error| error.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err("the connections ended badly".into())
        }
    }
}

/// Resident memory in KiB, once it no longer changes.
fn settled_memory(server: &Server) -> u64 {
    let mut last = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(250));
        let now = memory_kib(server.pid()).0;
        if now.abs_diff(last) <= 64 {
            return now;
        }
        last = now;
    }
    last
}

/// Open files once there are no more than `most`, or, failing that, after a while.
fn open_files_down_to(server: &Server, most: usize) -> usize {
    for _ in 0..120 {
        if open_files(server) <= most {
            break;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    open_files(server)
}

fn open_files(server: &Server) -> usize {
    entries(server, "fd")
}

fn threads(server: &Server) -> usize {
    entries(server, "task")
}

fn entries(server: &Server, folder: &str) -> usize {
    let path: PathBuf = ["/proc", &server.pid().to_string(), folder]
        .iter()
        .collect();
    std::fs::read_dir(path).map_or(0, Iterator::count)
}
