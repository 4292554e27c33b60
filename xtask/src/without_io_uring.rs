//! `cargo xtask without-io-uring COMMAND [ARGUMENT...]`: runs a command in a world whose kernel
//! refuses io_uring, as the default seccomp profiles of containers do.
//!
//! With it the poll driver gets the same tests as the other one, on a host that has both. The
//! refusal is EPERM, which is what such profiles give; the filter is inherited by everything the
//! command starts.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Runs the command; does not come back if it could be started.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let (program, rest) = words.split_first().ok_or("no command is given")?;
    forbid_io_uring()?;
    let error = Command::new(program).args(rest).exec();
    Err(format!("cannot run '{program}': {error}"))
}

/// Makes the io_uring calls fail with EPERM in this thread and all it will start.
fn forbid_io_uring() -> Result<(), String> {
    // io_uring_setup, io_uring_enter and io_uring_register have these numbers on every
    // architecture that seccompiler knows.
    const CALLS: [i64; 3] = [425, 426, 427];
    const EPERM: u32 = 1;
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    let rules: BTreeMap<_, _> = CALLS.map(|call| (call, Vec::new())).into();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        arch,
    )
    .map_err(|e| e.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|e| e.to_string())?;
    seccompiler::apply_filter(&program).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_reaches_what_is_started() {
        // On a thread of its own, as the filter cannot be taken off again.
        let modes = std::thread::spawn(|| {
            forbid_io_uring().expect("filter");
            let status = Command::new("cat")
                .arg("/proc/self/status")
                .output()
                .expect("cat");
            String::from_utf8_lossy(&status.stdout).into_owned()
        });
        let modes = modes.join().expect("no panic");
        // 2 is filter mode, see proc(5).
        assert!(modes.lines().any(|line| line == "Seccomp:\t2"), "{modes}");
    }

    #[test]
    fn a_command_is_needed() {
        assert!(run(&[]).is_err());
    }
}
