//! What a tree of processes has used: CPU time and memory, from `/proc`.
//!
//! A process's times include its threads that ended; those of children that ended are counted by
//! their parent once it has waited for them. The resolution is a clock tick, 10 ms.

use std::{fs, process::Command};

use crate::tool;

/// Ticks of a second; the same on all Linux systems.
const TICKS: f64 = 100.0;

/// CPU time of a process and all below it, in ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    tree(pid)
        .iter()
        .filter_map(|pid| stat(*pid))
        .map(|stat| stat.ticks)
        .sum()
}

/// CPU time in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    cpu_ticks(pid) as f64 / TICKS
}

/// Memory of a process and all below it, in KiB: what is resident now, and the sum of the peaks
/// since [`forget_peak`].
pub fn memory_kib(pid: u32) -> (u64, u64) {
    tree(pid)
        .into_iter()
        .map(memory)
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// Begins a new measurement of peak memory.
pub fn forget_peak(pid: u32) {
    for pid in tree(pid) {
        // Only loses the separation of rows if the kernel refuses.
        let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
}

/// Puts all threads of a process, and of all below it, on these CPUs (as taskset(1) names them).
pub fn pin(pid: u32, cpus: &str) -> Result<(), String> {
    for pid in tree(pid) {
        let pid = pid.to_string();
        tool::output(Command::new("taskset").args(["-a", "-p", "-c", cpus, &pid]))?;
    }
    Ok(())
}

/// The CPUs that this process may use, for [`pin`].
pub fn all_cpus() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or("0").trim().to_owned()
}

fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    (kib("VmRSS:").unwrap_or(0), kib("VmHWM:").unwrap_or(0))
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// A line of `/proc/PID/stat`. The name in it may contain anything, parentheses too.
fn parse(line: &str) -> Option<Stat> {
    let fields: Vec<&str> = line[line.rfind(')')? + 1..].split_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    // Fields 4 (ppid) and 14 to 17 (utime, stime, cutime, cstime) of proc(5); these begin at 3.
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat {
        parent: number(1)? as u32,
        ticks,
    })
}

/// The process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![root];
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<(u32, u32)> = pids
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn names_with_parentheses() {
        let line = "12 (a) b (c) S 7 12 12 0 -1 4194304 1 0 0 0 10 20 3 4 20 0 1 0 5 6 7";
        let stat = parse(line).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 37));
        assert!(parse("12 (a").is_none());
    }

    #[test]
    fn the_time_of_a_child_counts() {
        // The loop is bounded: whatever happens to its parent, it ends.
        let busy = "(i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done); exec sleep 60";
        let mut command = Command::new("sh");
        command
            .args(["-c", busy])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let began = std::time::Instant::now();
        let mut ticks = 0;
        while ticks < 2 && began.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            ticks = cpu_ticks(child.id());
        }
        let (now, peak) = memory_kib(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ticks >= 2, "{ticks}");
        assert!(now > 0 && peak >= now);
    }
}
