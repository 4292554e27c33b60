//! `cargo xtask vm prepare|run|test`: a command in a throw-away Linux guest.
//!
//! Kernel interfaces that this machine lacks (ublk, vDPA, VFIO, NVMe, nbd) are tried in a guest: QEMU
//! boots Debian's cloud kernel with an initramfs that holds the command and what it needs. No disk, no
//! root, no network. The exit status is the command's; 124 if the time was up, 125 if the guest ended
//! without saying one.
//!
//! Emulated (TCG) unless KVM really works: correctness is tried here, never speed.

mod closure;
mod cpio;
mod debian;
mod guest;
mod machine;
mod modules;
mod options;
mod run;
mod test;
mod unpack;

use std::{path::Path, process::ExitCode};

const USAGE: &str = "\
usage: cargo xtask vm prepare                      fetch the guest's kernel
       cargo xtask vm run [OPTION...] -- COMMAND   run a command in a guest
       cargo xtask vm test [CASE...]               the tests of vmtests/

options of run:
  --nvme             an NVMe disk: /dev/nvme0n1 and /dev/ng0n1
  --zoned            a zoned one: /dev/nvme0n2 and /dev/ng0n2
  --vfio             a virtio disk behind an IOMMU, bound to vfio-pci: 0000:00:10.0
  --vhost-user SOCKET[,queues=N][,packed][,reconnect]
                     a disk that a server on the host serves: /dev/vda, ...
  --disk FILE        a virtio disk of QEMU's own: /dev/vda, ...
  --mod MODULE       load a kernel module with all it needs
  --tool PROGRAM     another program with its libraries, in the guest's PATH
  --file FROM[:TO]   a file, or a library with what it needs
  --root FOLDER      look programs and libraries up there first (a chroot)
  --env NAME=VALUE   the command's environment
  --smp N, --memory MIB, --timeout SECONDS, --qemu PROGRAM, --stdin, --verbose, --print";

/// Runs the chore.
pub fn run(words: &[String]) -> Result<ExitCode, String> {
    let (name, rest) = words.split_first().ok_or(USAGE)?;
    match name.as_str() {
        "prepare" => {
            let kernel = debian::kernel()?;
            println!("{} {}", kernel.release, kernel.vmlinux().display());
            Ok(ExitCode::SUCCESS)
        }
        "test" => test::run(rest),
        "run" => run::run(&options::parse(rest)?),
        _ => Err(USAGE.into()),
    }
}

/// An error of a file, with its name.
fn told(path: &Path, why: std::io::Error) -> String {
    format!("{}: {why}", path.display())
}
