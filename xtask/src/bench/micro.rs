//! `cargo xtask bench micro`: nanoseconds and allocations of the pieces, and the budgets of a server
//! that has little to do.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use super::{
    nbd,
    process::{cpu_seconds, memory_kib},
    servers::{Disk, Kind, Place, SIZE, Server, World},
};
use crate::tool;

/// Runs all of it and prints a table.
pub fn run(words: &[String]) -> Result<(), String> {
    let output = match words {
        [] => None,
        [name, path] if name == "--output" => Some(path),
        _ => return Err(super::USAGE.into()),
    };
    let mut table = String::from("| what | figure | budget |\n| --- | --: | --: |\n");
    let mut line = |what: &str, figure: String, budget: &str| {
        eprintln!("{what}: {figure}");
        table.push_str(&format!("| {what} | {figure} | {budget} |\n"));
    };
    pieces(&mut line)?;
    let world = nbd::world(SIZE, tool::Profile::Dist)?;
    stack(&world, &mut line)?;
    idle(&world, &mut line)?;
    match output {
        None => println!("{table}"),
        Some(path) => std::fs::write(path, table).map_err(|e| format!("{path}: {e}"))?,
    }
    Ok(())
}

/// CPU time and allocations of every workload of the gates.
fn pieces(line: &mut dyn FnMut(&str, String, &str)) -> Result<(), String> {
    let gates = tool::build("blkit-gates", tool::Profile::Dist)?;
    let told = |words: &[&str]| tool::output(Command::new(&gates).args(words));
    let mut times: Vec<(String, f64)> = Vec::new();
    for name in told(&["list"])?
        .lines()
        .filter_map(|line| line.split(' ').next())
    {
        let time = told(&["time", name])?
            .trim()
            .parse::<f64>()
            .map_err(|e| e.to_string())?;
        let allocations: f64 = told(&["allocations", name])?
            .trim()
            .parse()
            .unwrap_or(f64::NAN);
        let figure = format!("{time:.0} ns, {:.2} allocations", allocations / 1000.0);
        line(&format!("{name}, per request"), figure, "");
        times.push((name.to_owned(), time));
    }
    let of = |name: &str| {
        times
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, time)| *time)
    };
    if let (Some(null), Some(map), Some(hook), Some(wait)) =
        (of("null"), of("map-5"), of("hook-5"), of("async-1"))
    {
        line(
            "a map layer",
            format!("{:.1} ns", (map - null) / 5.0),
            "5 ns",
        );
        line(
            "a hook layer",
            format!("{:.1} ns", (hook - null) / 5.0),
            "15 ns",
        );
        line("an async layer", format!("{:.0} ns", wait - null), "100 ns");
    }
    Ok(())
}

/// 512-byte reads with data through five layers, by one reactor.
fn stack(world: &World, line: &mut dyn FnMut(&str, String, &str)) -> Result<(), String> {
    let place = Place::Unix(world.folder.join("stack.sock"));
    let mut command = Command::new(&world.blkit);
    command.args(["serve", "--threads", "1"]);
    for filter in ["stats", "offset", "stats", "offset", "stats"] {
        command.args(["--filter", filter]);
    }
    if let Place::Unix(path) = &place {
        command.arg("--unix").arg(path);
    }
    command.args(["null", &SIZE.to_string()]);
    let server = Server::launch(world, Kind::Blkit, place, command)?;
    let mut best: (f64, f64) = (0.0, f64::MAX);
    for depth in ["32", "128", "512"] {
        let mut load = Command::new(&world.load);
        load.arg("run")
            .args(server.place.load_words())
            .args(["--block-size", "512"]);
        load.args([
            "--depth",
            depth,
            "--mode",
            "simple",
            "--seconds",
            "2",
            "--range",
            "1g",
        ]);
        let before = server.cpu();
        let told = tool::output(&mut load)?;
        let told: serde_json::Value = serde_json::from_str(&told).map_err(|e| e.to_string())?;
        let (requests, rate) = (
            told["requests"].as_f64(),
            told["requests_per_second"].as_f64(),
        );
        let (Some(requests), Some(rate)) = (requests, rate) else {
            return Err(format!("the load generator said {told}"));
        };
        best = (
            best.0.max(rate),
            best.1.min((server.cpu() - before) / requests),
        );
    }
    let figure = format!(
        "{:.2} M/s; {:.2} M per CPU second",
        best.0 / 1e6,
        1e-6 / best.1
    );
    line(
        "NBD, 512 B reads with data, 5 filters over null, one reactor",
        figure,
        "1 M/s",
    );
    Ok(())
}

/// A server with nothing to do.
fn idle(world: &World, line: &mut dyn FnMut(&str, String, &str)) -> Result<(), String> {
    let server = Server::start(world, Kind::Blkit, Disk::Null, false)?.ok_or("no null disk")?;
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (cpu_seconds(server.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let used = cpu_seconds(server.pid()) - before;
    let share = used / start.elapsed().as_secs_f64() * 100.0;
    line("CPU of an idle server", format!("{share:.2} %"), "0");
    let (now, _) = memory_kib(server.pid());
    line(
        "memory of a server without clients",
        format!("{:.1} MiB", now as f64 / 1024.0),
        "",
    );
    Ok(())
}
