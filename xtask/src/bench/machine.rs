//! What the figures were taken on and with.

use std::process::Command;

use crate::tool;

/// A Markdown list: CPU, memory, kernel, versions.
pub fn describe() -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("- {name}: {value}\n"));
    let cpuinfo = read("/proc/cpuinfo");
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let hypervisor = cpuinfo.contains(" hypervisor");
    line(
        "CPU",
        format!(
            "{} x {}{}",
            cores,
            field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".into()),
            if hypervisor {
                ", virtual; client and server share the cores"
            } else {
                ""
            }
        ),
    );
    line(
        "memory",
        field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default(),
    );
    line(
        "kernel",
        read("/proc/sys/kernel/osrelease").trim().to_owned(),
    );
    line(
        "blkit",
        first_line("git", &["describe", "--always", "--dirty=+"]),
    );
    line("rustc", first_line("rustc", &["--version"]));
    for (program, flag) in [
        ("nbdkit", "--version"),
        ("qemu-nbd", "--version"),
        ("nbd-server", "-V"),
        ("fio", "--version"),
        ("nbdcopy", "--version"),
    ] {
        line(program, first_line(program, &[flag]));
    }
    text
}

/// The load averages of the last 1, 5 and 15 minutes: who else is at work here.
pub fn load() -> String {
    read("/proc/loadavg")
        .split(' ')
        .take(3)
        .collect::<Vec<_>>()
        .join(", ")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of a `name : value` line.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn first_line(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .current_dir(tool::root())
        .output();
    let Ok(output) = output else {
        return "not installed".into();
    };
    let all = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&all)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_can_be_described() {
        let text = describe();
        assert!(
            text.contains("kernel: ") && text.contains("- rustc: rustc "),
            "{text}"
        );
        assert_eq!(load().split(", ").count(), 3);
    }
}
