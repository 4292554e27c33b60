//! One run of a guest, from its initramfs to its exit status.

use std::{
    fs,
    io::copy,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use super::{
    debian::{self, Kernel},
    guest::{Contents, quoted},
    machine::{self, Files},
    options::Options,
    told,
};
use crate::tool;

/// What is said of a guest that took too long, as timeout(1) does.
const LATE: u8 = 124;

/// And of one that ended without an exit status.
const DIED: u8 = 125;

/// How much of the kernel's log is shown.
const LOG_BYTES: usize = 6000;

/// Runs the command.
pub fn run(options: &Options) -> Result<ExitCode, String> {
    if !tool::is_there(&options.qemu) {
        return Err(format!(
            "{} is not installed (qemu-system-x86)",
            options.qemu
        ));
    }
    let kernel = debian::kernel()?;
    let folder = tempfile::Builder::new().prefix("blkit-vm.").tempdir();
    let folder = folder.map_err(|why| format!("a temporary folder: {why}"))?;
    let at = |name: &str| folder.path().join(name);
    let files = Files {
        folder: folder.path().to_owned(),
        log: at("kernel.log"),
        status: at("status"),
        initramfs: at("initramfs"),
    };
    write_initramfs(options, &kernel, &files.initramfs)?;
    let words = machine::words(options, &kernel.vmlinux(), &files)?;
    if options.print {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        println!("{} {}", options.qemu, words.join(" "));
        return Ok(ExitCode::SUCCESS);
    }
    let ended = boot(options, &words)?;
    let status = fs::read_to_string(&files.status).unwrap_or_default();
    let status = exit_status(&status);
    let log = fs::read(&files.log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    if options.verbose || status.is_none() {
        eprint!("{}", tail(&log));
    } else if let Some(complaint) = complaint(&log) {
        eprintln!("vm: the guest's kernel complained:\n{complaint}");
    }
    match (status, ended) {
        (Some(status), _) => return Ok(ExitCode::from(status)),
        (None, Some(124 | 137)) => eprintln!("vm: the time of {} s is up", options.seconds),
        (None, ended) => eprintln!("vm: the guest died (QEMU's exit status: {ended:?})"),
    }
    Ok(ExitCode::from(if matches!(ended, Some(124 | 137)) {
        LATE
    } else {
        DIED
    }))
}

fn write_initramfs(options: &Options, kernel: &Kernel, path: &Path) -> Result<(), String> {
    let modules = machine::modules(options);
    let contents = Contents {
        command: &options.command,
        programs: &options.programs,
        files: &options.files,
        variables: &options.variables,
        modules: &modules,
        root: options.root.as_deref(),
    };
    fs::write(path, contents.archive(kernel)?).map_err(|why| told(path, why))
}

/// Starts QEMU and waits for its end; its exit status.
///
/// timeout(1) bounds it even if we are killed. QEMU's standard input stays open: at its end the port
/// would be closed, and a write of the guest would wait for ever.
fn boot(options: &Options, words: &[String]) -> Result<Option<i32>, String> {
    let mut command = Command::new("timeout");
    command
        .args([
            "--kill-after=5",
            &options.seconds.to_string(),
            &options.qemu,
        ])
        .args(words);
    let child = command.stdin(Stdio::piped()).spawn();
    let mut child = child.map_err(|why| format!("timeout: {why}"))?;
    let mut input = child.stdin.take().expect("it is a pipe");
    let held = match options.stdin {
        false => Some(input),
        true => {
            // Ends with this process.
            std::thread::spawn(move || {
                let _ = copy(&mut std::io::stdin(), &mut input);
                std::mem::forget(input);
            });
            None
        }
    };
    let status = child.wait().map_err(|why| format!("timeout: {why}"))?;
    drop(held);
    Ok(status.code())
}

/// `exit=N`, as init writes it.
fn exit_status(text: &str) -> Option<u8> {
    text.lines()
        .find_map(|line| line.strip_prefix("exit=")?.parse().ok())
}

fn tail(log: &str) -> &str {
    let start = log.len().saturating_sub(LOG_BYTES);
    let start = (start..log.len())
        .find(|at| log.is_char_boundary(*at))
        .unwrap_or(log.len());
    &log[start..]
}

/// What the kernel wrote about a trouble of its own, if it did.
fn complaint(log: &str) -> Option<String> {
    let signs = [
        "Kernel panic",
        "BUG:",
        "Oops:",
        "WARNING: CPU",
        "blocked for more than",
    ];
    let lines: Vec<&str> = log.lines().collect();
    let first = lines
        .iter()
        .position(|line| signs.iter().any(|sign| line.contains(sign)))?;
    Some(lines[first..lines.len().min(first + 12)].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(exit_status("exit=3\n"), Some(3));
        assert_eq!(exit_status(""), None);
        assert_eq!(exit_status("exit=x"), None);
    }

    #[test]
    fn a_kernel_that_complains() {
        assert_eq!(complaint("all is well\n"), None);
        let log = "a\n[1.0] BUG: unable\nb\n";
        assert_eq!(complaint(log).unwrap(), "[1.0] BUG: unable\nb");
        assert_eq!(tail("é".repeat(LOG_BYTES).as_str()).len(), LOG_BYTES);
    }
}
