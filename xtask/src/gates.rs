//! `cargo xtask gates [--update]`: instructions and allocations per request, against a baseline.
//!
//! **What.** Every workload of `benches/gates` runs under callgrind with N and with 2N requests; the
//! difference, divided by N, is what a request costs, without start and end. More than 2 % away from
//! `benches/gates/baseline.toml` fails, in both directions: an improvement is to be written down, or
//! it is lost again unseen. Allocations are counted too and must be 0 wherever the design says 0.
//!
//! **Why so.** Counts do not depend on how busy the machine is, so this can be a test. They do depend
//! on the compiler, which rust-toolchain.toml pins, and on which variant of memcpy the C library
//! chooses for the CPU: it is told to use the one every x86-64 CPU has, and the workloads move small
//! blocks only.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, ExitCode},
};

use crate::tool;

/// Requests of the shorter run: enough to fill all pools.
const REQUESTS: u64 = 6400;

/// How far a count may be from the baseline.
const TOLERANCE: f64 = 0.02;

/// Makes the C library's choices the same on all x86-64 CPUs.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX2,-AVX,-ERMS,-FSRM,\
                        -AVX_Fast_Unaligned_Load,-AVX2_Usable,-Prefer_ERMS,-Prefer_FSRM";

/// Runs the gates.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let update = match words {
        [] => false,
        [word] if word == "--update" => true,
        _ => return Err("usage: cargo xtask gates [--update]".into()),
    };
    if !tool::is_there("valgrind") {
        return Err("valgrind is not installed, and without it nothing can be counted".into());
    }
    let program = tool::build("blkit-gates", tool::Profile::Release)?;
    let path = tool::root().join("benches/gates/baseline.toml");
    let baseline = match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text)?,
        Err(_) if update => BTreeMap::new(),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let (mut counts, mut failures) = (BTreeMap::new(), 0);
    println!(
        "{:<28} {:>12} {:>12}  {:>7}",
        "workload", "instructions", "baseline", ""
    );
    for line in tool::output(Command::new(&program).arg("list"))?.lines() {
        let (name, most) = line
            .split_once(' ')
            .ok_or("the list of workloads is malformed")?;
        let count = instructions(&program, name)?;
        let allocations = tool::output(Command::new(&program).args(["allocations", name]))?;
        let verdict = judge(count, baseline.get(name).copied(), update);
        let told = baseline
            .get(name)
            .map_or("-".into(), |count| format!("{count:.1}"));
        println!("{name:<28} {count:>12.1} {told:>12}  {}", verdict.text);
        failures += u32::from(!verdict.good);
        if most == "0" && allocations.trim() != "0" {
            println!(
                "{name:<28} allocates: {} times in 1000 requests",
                allocations.trim()
            );
            failures += 1;
        }
        counts.insert(name.to_owned(), count);
    }
    for name in baseline.keys().filter(|name| !counts.contains_key(*name)) {
        println!("{name:<28} is in the baseline, and there is no such workload");
        failures += u32::from(!update);
    }
    if update {
        std::fs::write(&path, write(&counts)).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{} is written", path.display());
    }
    println!("{} gates, {failures} failed", counts.len());
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Verdict {
    good: bool,
    text: String,
}

fn judge(count: f64, baseline: Option<f64>, update: bool) -> Verdict {
    let Some(baseline) = baseline else {
        return Verdict {
            good: update,
            text: "new: cargo xtask gates --update".into(),
        };
    };
    let change = count / baseline - 1.0;
    let good = update || change.abs() <= TOLERANCE;
    let text = match change {
        _ if change.abs() <= TOLERANCE => format!("{:+.1} %", change * 100.0),
        _ if change > 0.0 => format!("{:+.1} %: more than before", change * 100.0),
        _ => format!(
            "{:+.1} %: fewer; cargo xtask gates --update",
            change * 100.0
        ),
    };
    Verdict { good, text }
}

/// Instructions of one request.
fn instructions(program: &Path, name: &str) -> Result<f64, String> {
    let once = callgrind(program, name, REQUESTS)?;
    let twice = callgrind(program, name, 2 * REQUESTS)?;
    Ok((twice as f64 - once as f64) / REQUESTS as f64)
}

fn callgrind(program: &Path, name: &str, requests: u64) -> Result<u64, String> {
    let file = format!(
        "blkit-gates-{}-{name}-{requests}.callgrind",
        std::process::id()
    );
    let file = std::env::temp_dir().join(file);
    let run = tool::output(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .args(["run", name, &requests.to_string()])
            .env("GLIBC_TUNABLES", TUNABLES),
    );
    let profile = std::fs::read_to_string(&file);
    let _ = std::fs::remove_file(&file);
    run?;
    let profile = profile.map_err(|error| format!("{}: {error}", file.display()))?;
    total(&profile).ok_or_else(|| format!("{}: no summary in it", file.display()))
}

/// All instructions of a profile.
fn total(profile: &str) -> Option<u64> {
    let line = |start: &str| profile.lines().find_map(|line| line.strip_prefix(start));
    line("summary:")
        .or_else(|| line("totals:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Reads `name = number` lines; a subset of TOML.
fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut counts = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() || line == "[instructions]" {
            continue;
        }
        let pair = line
            .split_once('=')
            .and_then(|(name, count)| Some((name.trim().to_owned(), count.trim().parse().ok()?)));
        let (name, count) = pair.ok_or_else(|| format!("baseline.toml:{}: '{line}'", n + 1))?;
        counts.insert(name, count);
    }
    Ok(counts)
}

fn write(counts: &BTreeMap<String, f64>) -> String {
    let mut text = String::from(
        "# Instructions per request, by callgrind. Written by `cargo xtask gates --update`;\n\
         # +-2 % is let pass, more fails. A change belongs into the commit that causes it.\n\
         [instructions]\n",
    );
    for (name, count) in counts {
        text.push_str(&format!("{name} = {count:.1}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baseline_round_trip() {
        let counts = BTreeMap::from([("a-1".to_owned(), 12.5), ("b".to_owned(), 100.0)]);
        assert_eq!(parse(&write(&counts)).unwrap(), counts);
        assert!(parse("a = x").is_err());
        assert!(parse("a").is_err());
    }

    #[test]
    fn counts_far_from_the_baseline_fail_both_ways() {
        assert!(judge(101.9, Some(100.0), false).good);
        assert!(judge(98.1, Some(100.0), false).good);
        assert!(!judge(102.1, Some(100.0), false).good);
        assert!(!judge(97.9, Some(100.0), false).good);
        assert!(!judge(100.0, None, false).good);
        assert!(judge(100.0, None, true).good);
    }

    #[test]
    fn totals_are_found() {
        assert_eq!(total("events: Ir\nsummary: 1234\n"), Some(1234));
        assert_eq!(total("events: Ir\ntotals: 77 5\n"), Some(77));
        assert_eq!(total("events: Ir\n"), None);
    }
}
