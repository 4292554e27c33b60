//! QEMU's command line.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use super::{options::Options, told};

/// The PCI function of the disk for VFIO.
const VFIO_FUNCTION: &str = "0000:00:10.0";

/// Bytes of each disk that is made for a guest.
const DISK_SIZE: u64 = 64 << 20;

/// The files of one run.
pub struct Files {
    /// Holds them all, and disks that are made.
    pub folder: PathBuf,
    /// The kernel's log.
    pub log: PathBuf,
    /// Where init writes the exit status.
    pub status: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// What QEMU is started with.
pub struct Machine {
    words: Vec<String>,
    /// The kernel's command line.
    kernel: Vec<String>,
    machine: String,
}

/// The modules that the devices need.
pub fn modules(options: &Options) -> Vec<String> {
    let mut names = vec!["virtio_pci", "virtio_console"];
    if !options.disks.is_empty() || !options.vhost_user.is_empty() {
        names.push("virtio_blk");
    }
    if options.nvme || options.zoned {
        names.push("nvme");
    }
    if options.vfio {
        names.extend(["vfio_pci", "vfio_iommu_type1"]);
    }
    names
        .into_iter()
        .map(str::to_owned)
        .chain(options.modules.iter().cloned())
        .collect()
}

/// The whole command line.
pub fn words(options: &Options, vmlinux: &Path, files: &Files) -> Result<Vec<String>, String> {
    let mut machine = Machine::new(options);
    machine.console(files);
    if options.vfio {
        machine.vfio(files)?;
    }
    if options.nvme || options.zoned {
        machine.nvme(options, files)?;
    }
    for (number, disk) in options.disks.iter().enumerate() {
        let format = if disk.extension().is_some_and(|ext| ext == "qcow2") {
            "qcow2"
        } else {
            "raw"
        };
        machine.drive(&format!("disk{number}"), disk, format);
        machine.device(&format!("virtio-blk-pci,drive=disk{number}"));
    }
    if !options.vhost_user.is_empty() {
        machine.vhost_user(options);
    }
    Ok(machine.finish(vmlinux, files))
}

impl Machine {
    fn new(options: &Options) -> Machine {
        let words = "-nodefaults -no-user-config -display none -no-reboot";
        let mut words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        words.extend(["-m".into(), format!("{}M", options.memory_mib)]);
        words.extend(["-smp".into(), options.cpus.to_string()]);
        let mut machine = "q35".to_owned();
        let mut kernel = "console=ttyS0 panic=-1 rdinit=/init mitigations=off nokaslr audit=0 \
                          random.trust_cpu=on nmi_watchdog=0 rcupdate.rcu_expedited=1"
            .to_owned();
        if kvm_works() {
            words.extend(["-accel", "kvm", "-cpu", "host"].map(str::to_owned));
            machine.push_str(",kernel-irqchip=split");
        } else {
            let emulated = [
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "max,la57=off",
            ];
            words.extend(emulated.map(str::to_owned));
            kernel.push_str(" tsc=reliable no_timer_check");
        }
        kernel.push_str(if options.verbose {
            " loglevel=7"
        } else {
            " quiet"
        });
        Machine {
            words,
            kernel: vec![kernel],
            machine,
        }
    }

    fn word(&mut self, name: &str, value: &str) {
        self.words.extend([name.to_owned(), value.to_owned()]);
    }

    fn device(&mut self, value: &str) {
        self.word("-device", value);
    }

    fn drive(&mut self, id: &str, file: &Path, format: &str) {
        let file = comma(file);
        let value = format!("if=none,id={id},format={format},file={file},discard=unmap");
        self.word("-drive", &value);
    }

    /// Output and status by ports of their own: raw bytes, and quick.
    fn console(&mut self, files: &Files) {
        self.word("-serial", &format!("file:{}", comma(&files.log)));
        self.device("virtio-serial-pci");
        self.word("-chardev", "stdio,id=console,signal=off");
        self.device("virtserialport,chardev=console,name=blkit.console");
        self.word(
            "-chardev",
            &format!("file,id=status,path={}", comma(&files.status)),
        );
        self.device("virtserialport,chardev=status,name=blkit.status");
    }

    fn vfio(&mut self, files: &Files) -> Result<(), String> {
        self.device("intel-iommu,intremap=on,caching-mode=on,device-iotlb=on");
        self.kernel
            .push(format!("intel_iommu=on blkit.vfio={VFIO_FUNCTION}"));
        self.drive("vfio", &disk(files, "vfio")?, "raw");
        self.device(
            "virtio-blk-pci,drive=vfio,disable-legacy=on,iommu_platform=on,ats=on,packed=on,\
             serial=blkit-vfio,num-queues=2,addr=0x10",
        );
        Ok(())
    }

    fn nvme(&mut self, options: &Options, files: &Files) -> Result<(), String> {
        self.device("nvme,serial=blkit-nvme,id=nvme0");
        if options.nvme {
            self.drive("nvme1", &disk(files, "nvme")?, "raw");
            self.device("nvme-ns,drive=nvme1,bus=nvme0,nsid=1");
        }
        if options.zoned {
            self.drive("nvme2", &disk(files, "zoned")?, "raw");
            self.device(
                "nvme-ns,drive=nvme2,bus=nvme0,nsid=2,logical_block_size=4096,\
                 physical_block_size=4096,zoned=on,zoned.zone_size=4M,zoned.zone_capacity=3M,\
                 zoned.max_open=4,zoned.max_active=6",
            );
        }
        Ok(())
    }

    /// The server maps the guest's memory: it must be a shared file.
    fn vhost_user(&mut self, options: &Options) {
        let memory = options.memory_mib;
        let memory = format!("memory-backend-memfd,id=memory,size={memory}M,share=on");
        self.word("-object", &memory);
        self.machine.push_str(",memory-backend=memory");
        for (number, disk) in options.vhost_user.iter().enumerate() {
            let socket = comma(&disk.socket);
            let reconnect = if disk.reconnect {
                reconnect(&options.qemu)
            } else {
                ""
            };
            let chardev = format!("socket,id=vhost{number},path={socket}{reconnect}");
            self.word("-chardev", &chardev);
            let (queues, packed) = (disk.queues, if disk.packed { ",packed=on" } else { "" });
            let device = format!("chardev=vhost{number},num-queues={queues}{packed}");
            self.device(&format!("vhost-user-blk-pci,{device}"));
        }
    }

    fn finish(mut self, vmlinux: &Path, files: &Files) -> Vec<String> {
        let (machine, kernel) = (self.machine.clone(), self.kernel.join(" "));
        self.word("-machine", &machine);
        self.word("-kernel", &vmlinux.display().to_string());
        self.word("-initrd", &files.initramfs.display().to_string());
        self.word("-append", &kernel);
        self.words
    }
}

/// A path as a value of QEMU's options.
fn comma(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Makes an empty disk.
fn disk(files: &Files, name: &str) -> Result<PathBuf, String> {
    let path = files.folder.join(name);
    let made = File::create(&path).and_then(|file| file.set_len(DISK_SIZE));
    made.map_err(|why| told(&path, why))?;
    Ok(path)
}

/// Whether KVM runs an ordinary kernel. A host that is a guest of PVM has `/dev/kvm`, but interprets
/// each instruction of a kernel that does not know PVM, and not all of them.
fn kvm_works() -> bool {
    let writable = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    writable && !Path::new("/sys/module/kvm_pvm").exists()
}

/// How QEMU is told to connect anew: in seconds until 9.1, then in milliseconds.
fn reconnect(qemu: &str) -> &'static str {
    let said = crate::tool::output(std::process::Command::new(qemu).arg("--version"));
    match version(&said.unwrap_or_default()) >= (9, 2) {
        true => ",reconnect-ms=200",
        false => ",reconnect=1",
    }
}

/// The version in `QEMU emulator version 7.2.22 (Debian ...)`.
fn version(said: &str) -> (u32, u32) {
    let word = said.split_whitespace().nth(3).unwrap_or_default();
    let mut numbers = word.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::options::{VhostUser, parse};

    #[test]
    fn versions() {
        assert_eq!(
            version("QEMU emulator version 7.2.22 (Debian 1:7.2)\n"),
            (7, 2)
        );
        assert_eq!(version("QEMU emulator version 11.1.3 (Debian)"), (11, 1));
        assert_eq!(version(""), (0, 0));
    }

    #[test]
    fn a_guest_with_everything() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let files = Files {
            folder: at(""),
            log: at("log,1"),
            status: at("status"),
            initramfs: at("initramfs"),
        };
        let mut options =
            parse(&["--nvme", "--zoned", "--vfio", "--", "x"].map(String::from)).unwrap();
        options.vhost_user.push(VhostUser {
            socket: "/s".into(),
            queues: 3,
            packed: true,
            reconnect: false,
        });
        let line = words(&options, Path::new("/vmlinux"), &files)
            .unwrap()
            .join(" ");
        for part in [
            "log,,1",
            "intel-iommu",
            "nsid=2",
            "memory-backend=memory",
            "chardev=vhost0,num-queues=3,packed=on",
            "blkit.vfio=0000:00:10.0",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!(std::fs::metadata(at("zoned")).unwrap().len(), DISK_SIZE);
        assert!(modules(&options).contains(&"vfio_pci".to_owned()));
    }
}
