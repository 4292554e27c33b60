//! Confinement of the serving process (`--sandbox`): a seccomp filter that refuses what no server of
//! blocks does once it runs. Whoever finds a hole in it can run no program, gain no privileges, look
//! into no other process, and change nothing of the system: mounts, modules, namespaces, clocks.
//!
//! It is put on when everything is configured and before the first thread, which thereby all have
//! it; it cannot be taken off. A refused call fails with EPERM. The filter names what is forbidden
//! and not what is allowed: a new kernel's or C library's harmless call must not stop a server.

use std::collections::BTreeMap;

use block::{Error, ErrorKind, Result};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What is refused, in groups.
const FORBIDDEN: &[&[libc::c_long]] = &[
    // To run programs.
    &[libc::SYS_execve, libc::SYS_execveat],
    // To become someone else, or to get rights.
    &[
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_personality,
        libc::SYS_add_key,
        libc::SYS_keyctl,
        libc::SYS_request_key,
    ],
    // To look into other processes.
    &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
    ],
    // To change what others see of the file system.
    &[
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_mknodat,
        libc::SYS_open_by_handle_at,
        libc::SYS_quotactl,
        libc::SYS_swapon,
        libc::SYS_swapoff,
    ],
    // To leave, or to make, a container.
    &[libc::SYS_setns, libc::SYS_unshare],
    // To change or to probe the kernel.
    &[
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_reboot,
        libc::SYS_acct,
        libc::SYS_syslog,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
    ],
    #[cfg(target_arch = "x86_64")]
    &[
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_modify_ldt,
        libc::SYS_mknod,
        libc::SYS_kexec_file_load,
    ],
];

/// Puts this process, and every thread that it will have, into the sandbox.
///
/// # Errors
/// The kernel, or this processor's architecture, has no such filters.
pub fn enter() -> Result<()> {
    let program = filter().map_err(cannot)?;
    seccompiler::apply_filter(&program).map_err(cannot)
}

fn filter() -> std::result::Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, _> = FORBIDDEN
        .iter()
        .flat_map(|group| group.iter())
        .map(|&call| (call, Vec::new()))
        .collect();
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()
}

fn cannot(error: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Config,
        format!("cannot enter the sandbox: {error}"),
    )
    .hint("serve without --sandbox, or on a kernel with seccomp filters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_cannot_be_run_and_a_thread_can() {
        // On a thread of its own, as the filter cannot be taken off again.
        let confined = std::thread::spawn(|| {
            enter().expect("seccomp");
            let inner = std::thread::spawn(|| std::fs::read("/proc/self/cmdline").is_ok());
            (Command::new("true").status(), inner.join())
        });
        let (ran, read) = confined.join().expect("no panic");
        assert_eq!(
            ran.map_err(|error| error.raw_os_error()).err(),
            Some(Some(1))
        );
        assert!(read.expect("no panic"));
    }
}
